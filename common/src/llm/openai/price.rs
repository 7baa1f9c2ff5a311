//! What a model costs: as configured, else as the bundled catalogue of public prices has it.

use std::time::{Duration, UNIX_EPOCH};

use genai_prices::{PriceRequest, Usage, UsageKey};

use crate::clock::Clock;
use crate::config::{LlmConfig, Price};

/// The price of `model` at the configured endpoint, if it is known. The catalogue (US dollars, standard rates for short
/// prompts) knows providers by their public addresses; what a proxy or a local server charges is for its operator to say.
pub(super) fn price(config: &LlmConfig, model: &str) -> Option<Price> {
    let listed = config.prices.get(model).copied();
    listed.or_else(|| catalogued(&config.base_url, model).filter(|_| config.base_url.starts_with("https://")))
}

fn catalogued(base_url: &str, model: &str) -> Option<Price> {
    // Few enough tokens for the lowest tier of every model.
    const TOKENS: f64 = 1_000.0;
    let usage = Usage::from([(UsageKey::INPUT_TOKENS, TOKENS), (UsageKey::OUTPUT_TOKENS, TOKENS)]);
    let now = UNIX_EPOCH + Duration::from_millis(Clock::System.now_ms());
    let request = PriceRequest::new(model, &usage).with_provider_api_url(base_url).with_timestamp(now);
    let found = genai_prices::calculate(&request).ok()?;
    Price::of_million(found.input_price / TOKENS * 1e6, found.output_price / TOKENS * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_hosts_have_prices() {
        let known = |url: &str, model: &str| catalogued(url, model);
        let mini = known("https://api.openai.com/v1", "gpt-4o-mini").unwrap();
        assert!(mini.input_nanos > 0 && mini.output_nanos > mini.input_nanos, "{mini:?}");
        assert_eq!(known("https://api.openai.com/v1", "gpt-4o-mini-2024-07-18"), Some(mini));
        assert!(known("https://openrouter.ai/api/v1", "openai/gpt-4o-mini").is_some());
        assert_eq!(known("https://api.openai.com/v1", "no-such-model"), None);
        assert_eq!(known("http://127.0.0.1:8089/v1", "gpt-4o-mini"), None);
        assert_eq!(known("https://models.internal/v1", "gpt-4o-mini"), None);
    }
}
