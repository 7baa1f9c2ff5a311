//! `calculate {expression}`: exact arithmetic with percentages and units, by fend.
//!
//! The same expression gives the same result everywhere: no exchange rates, no dice, no clock, a fresh context each time. The
//! result is a text that can be part of another expression: fend's "approx." is taken off.
//!
//! fend reads leniently and some inputs mean other than what people mean: `mean(1,2,3)` is 123, `7 // 2` is 14, `200 + 15%` is
//! 200.15, `2026-01-01` is 2024. A wrong number looks like a right one, so these are refused with what to write instead
//! (`calculate/reading.rs`). So is what would outgrow memory or time where fend cannot be interrupted: shifts, dice, variables,
//! functions of one's own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::limits::{CALCULATION_BYTES_MAX, CALCULATION_TIMEOUT, EXPRESSION_STACK_BYTES};
use common::tool::ToolSpec;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{CallContext, Tool, ToolError};

mod reading;
#[cfg(test)]
mod tests;

/// Expressions up to this length, in bytes, fit any thread's stack; longer ones get a thread with a deep one.
const SHALLOW_BYTES: usize = 24;
/// Significant digits of a result that has too few of them at fend's ten decimal places.
const DIGITS_OF_SMALL: usize = 10;

/// The tool.
pub(super) struct Calculate;

impl Tool for Calculate {
    fn spec(&self) -> ToolSpec {
        common::tool::calculate()
    }

    fn call<'a>(
        &'a self,
        arguments: Value,
        _ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>> {
        Box::pin(async move {
            let expression = arguments.get("expression").and_then(Value::as_str).unwrap_or_default();
            calculate(expression).await.map(Value::String).map_err(ToolError)
        })
    }
}

/// Stops the calculation when it is dropped: after the result, at the time-out, or with the whole call.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks whether to stop.
struct Stopped(Arc<AtomicBool>);

impl fend_core::Interrupt for Stopped {
    fn should_interrupt(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

async fn calculate(expression: &str) -> Result<String, String> {
    let readable = reading::read(expression)?;
    let stop = Stop(Arc::default());
    let stopped = Stopped(Arc::clone(&stop.0));
    let work = spawn_blocking(move || {
        if readable.len() <= SHALLOW_BYTES { evaluate(&readable, &stopped) } else { on_deep_stack(&readable, &stopped) }
    });
    match timeout(CALCULATION_TIMEOUT, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err("the expression broke the calculator; write it in a simpler way".into()),
        Err(_elapsed) => {
            Err(format!("the calculation was stopped after {} s: its numbers are too large", CALCULATION_TIMEOUT.as_secs()))
        }
    }
}

/// fend's parser and evaluator recurse; a stack overflow would end the process.
fn on_deep_stack(expression: &str, stopped: &Stopped) -> Result<String, String> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("calculate".into()).stack_size(EXPRESSION_STACK_BYTES);
        match thread.spawn_scoped(scope, || evaluate(expression, stopped)) {
            Ok(running) => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(why) => Err(format!("there is no room for a long calculation now: {why}")),
        }
    })
}

fn evaluate(expression: &str, stopped: &Stopped) -> Result<String, String> {
    let result = evaluate_once(expression, stopped)?;
    let Some(digits) = result.strip_prefix("approx. ") else { return finish(&result) };
    // At ten decimal places a small number has lost its digits, or is 0.
    let significant = digits.trim_start_matches('-').split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    let small = significant.parse::<f64>().is_ok_and(|value| value < 0.001);
    let asked_for_digits = expression.split_whitespace().any(|word| word == "dp" || word == "sf");
    if small && !asked_for_digits {
        let again = evaluate_once(&format!("({expression}) to {DIGITS_OF_SMALL} sf"), stopped);
        return finish(again.as_deref().unwrap_or(&result).trim_start_matches("approx. "));
    }
    finish(digits)
}

fn evaluate_once(expression: &str, stopped: &Stopped) -> Result<String, String> {
    let mut context = fend_core::Context::new();
    context.disable_rng();
    match fend_core::evaluate_with_interrupt(expression, &mut context, stopped) {
        Ok(result) => Ok(result.get_main_result().to_owned()),
        Err(why) => Err(reading::explain(&why)),
    }
}

fn finish(result: &str) -> Result<String, String> {
    if result.trim().is_empty() {
        return Err("the expression has no value".into());
    }
    if result
        .strip_suffix('i')
        .is_some_and(|real| real.is_empty() || real.ends_with(|c: char| c.is_ascii_digit() || "- ".contains(c)))
    {
        return Err("the value is not a real number: a root or a logarithm of a negative number is taken".into());
    }
    if result.contains(['\\', '{']) || result.contains("=>") {
        return Err("the value is a function, not a number; put its argument in brackets, as in sqrt(2)".into());
    }
    if result.len() > CALCULATION_BYTES_MAX {
        return Err(format!(
            "the result has {} characters, the limit is {CALCULATION_BYTES_MAX}; ask for log10 of it instead",
            result.len()
        ));
    }
    Ok(result.to_owned())
}
