//! Configuration for people: what holds and where it comes from, and what there is to set.

use std::fmt::Write;

use super::settings::{Kind, SETTINGS, Setting};
use super::{Loaded, LoadedValue, ValueSource};

/// Every setting as a line of TOML with its source as a comment, secrets masked. What is not set is a comment.
pub fn print_config(loaded: &Loaded) -> String {
    let mut printed = String::new();
    for LoadedValue { setting, shown, source } in &loaded.values {
        // Writing to a String cannot fail.
        let _infallible = match shown {
            None => writeln!(printed, "# {} is not set", setting.key),
            Some(text) => match setting.kind {
                Kind::Whole(..) | Kind::Seconds(..) => writeln!(printed, "{} = {text}  # {source}", setting.key),
                Kind::Text
                | Kind::Prefix
                | Kind::Urls(_)
                | Kind::HttpUrl
                | Kind::Choice(_)
                | Kind::Address
                | Kind::Folder
                | Kind::Filter
                | Kind::Prices => {
                    writeln!(printed, "{} = {}  # {source}", setting.key, toml_text(text))
                }
            },
        };
    }
    printed
}

/// A table of all settings for the README, as Markdown.
pub fn settings_markdown() -> String {
    let mut table = String::from("| variable | key in the file | default | meaning |\n|---|---|---|---|\n");
    for setting in &SETTINGS {
        let default = (setting.default)();
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let file = if setting.secret { " (or in a file: `_FILE`)" } else { "" };
        let range = match setting.kind {
            Kind::Choice(words) => format!("; one of `{}`", words.join("`, `")),
            Kind::Whole(min, max) => format!("; {min} to {max}"),
            Kind::Seconds(min, max) => format!(", in seconds; {min} to {max}"),
            Kind::Text
            | Kind::Prefix
            | Kind::Urls(_)
            | Kind::HttpUrl
            | Kind::Address
            | Kind::Folder
            | Kind::Filter
            | Kind::Prices => String::new(),
        };
        let Setting { variable, key, meaning, .. } = setting;
        // Writing to a String cannot fail.
        let _infallible = writeln!(table, "| `{variable}`{file} | `{key}` | {default} | {meaning}{range} |");
    }
    table
}

/// A value as it may be shown.
pub(super) fn shown(setting: &'static Setting, text: String, source: ValueSource) -> LoadedValue {
    let masked = match setting.kind {
        Kind::Urls(_) | Kind::HttpUrl => mask_url(&text),
        _ if setting.secret => "***".to_owned(),
        Kind::Text
        | Kind::Prefix
        | Kind::Choice(_)
        | Kind::Whole(..)
        | Kind::Seconds(..)
        | Kind::Address
        | Kind::Folder
        | Kind::Filter
        | Kind::Prices => text.clone(),
    };
    LoadedValue { setting, shown: (!text.is_empty()).then_some(masked), source }
}

/// One URL, or several separated by commas, with `***` for each password and for what a query says.
///
/// A password may itself contain `@`, `/` or `,` although it should not: everything from the first `:` after the scheme to the
/// last `@` of a URL counts as one.
pub fn mask_url(urls: &str) -> String {
    let mut masked = String::with_capacity(urls.len());
    // Starts of URLs: the first byte, and after every comma that a scheme follows.
    let starts = urls.match_indices(',').map(|(at, _)| at + 1).filter(|at| {
        let rest = urls[*at..].trim_start();
        rest.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+'))
    });
    let bounds: Vec<usize> = [0].into_iter().chain(starts).chain([urls.len()]).collect();
    for bound in bounds.windows(2) {
        masked.push_str(&mask_one(&urls[bound[0]..bound[1]]));
    }
    masked
}

fn mask_one(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
    // A password in a query may contain `@` as well: nothing behind this is looked at.
    let hidden = rest.find("?sentinel_").or_else(|| rest.find("&sentinel_"));
    let rest = &rest[..hidden.unwrap_or(rest.len())];
    let (user, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => match credentials.split_once(':') {
            Some((user, _password)) => (format!("{user}:***@"), rest),
            None => (format!("{credentials}@"), rest),
        },
        None => (String::new(), rest),
    };
    let rest = match rest.split_once('?') {
        Some((path, _query)) => format!("{path}?***{}", if url.ends_with(',') { "," } else { "" }),
        None if hidden.is_some() => format!("{rest}?***{}", if url.ends_with(',') { "," } else { "" }),
        None => rest.to_owned(),
    };
    format!("{scheme}{user}{rest}")
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
