//! Prices of models, as an operator writes them: `gpt-4o-mini=0.15/0.60,other=2.5/10`. Pure.

use std::collections::BTreeMap;

/// Highest price of a million tokens that is believed.
const PRICE_MAX: f64 = 1_000_000.0;
/// Billionths in one.
const NANOS: f64 = 1e9;

/// What a model costs, in billionths of the unit, for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Tokens that it reads.
    pub input_nanos: u64,
    /// Tokens that it writes.
    pub output_nanos: u64,
}

impl Price {
    /// From prices of a million tokens in the unit itself; `None` when they are no prices.
    pub fn of_million(input: f64, output: f64) -> Option<Self> {
        Some(Self { input_nanos: nanos(input)?, output_nanos: nanos(output)? })
    }

    /// What so many tokens cost, in billionths, rounded up.
    pub fn cost_nanos(self, input_tokens: u64, output_tokens: u64) -> u64 {
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let sum = part(input_tokens, self.input_nanos).saturating_add(part(output_tokens, self.output_nanos));
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

fn nanos(price: f64) -> Option<u64> {
    if !(0.0..=PRICE_MAX).contains(&price) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10^15, and not negative")]
    Some((price * NANOS).round() as u64)
}

/// The prices in `text` by model; `None` when it is not such a list.
pub(super) fn parse(text: &str) -> Option<BTreeMap<String, Price>> {
    let mut prices = BTreeMap::new();
    for entry in text.split(',') {
        // A model's name may hold anything but a comma; the prices come after its last `=`.
        let (model, price) = entry.rsplit_once('=')?;
        let (input, output) = price.split_once('/')?;
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let model = model.trim();
        let fresh = !model.is_empty() && !prices.contains_key(model);
        prices.insert(model.to_owned(), Price::of_million(number(input)?, number(output)?).filter(|_| fresh)?);
    }
    Some(prices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read() {
        let read = parse("gpt-4o-mini=0.15/0.60, org/m:free = 0 / 0 ,a=b=1e2/3").unwrap();
        let expected = [
            ("a=b", Price { input_nanos: 100_000_000_000, output_nanos: 3_000_000_000 }),
            ("gpt-4o-mini", Price { input_nanos: 150_000_000, output_nanos: 600_000_000 }),
            ("org/m:free", Price { input_nanos: 0, output_nanos: 0 }),
        ];
        assert_eq!(read, expected.map(|(model, price)| (model.to_owned(), price)).into());
        for bad in ["", "m", "m=", "m=1", "=1/2", "m=1/2,", "m=1/2/3", "m=-1/2", "m=1/NaN", "m=inf/1", "m=1/2,m=1/2", "m=1e7/1"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn costs_are_exact_and_rounded_up() {
        let price = Price { input_nanos: 150_000_000, output_nanos: 600_000_000 };
        assert_eq!(price.cost_nanos(1_000_000, 1_000_000), 750_000_000);
        assert_eq!((price.cost_nanos(1, 0), price.cost_nanos(0, 0)), (150, 0));
        assert_eq!(Price { input_nanos: 1, output_nanos: 0 }.cost_nanos(1, 0), 1);
        assert_eq!(Price { input_nanos: u64::MAX, output_nanos: u64::MAX }.cost_nanos(u64::MAX, u64::MAX), u64::MAX);
    }
}
