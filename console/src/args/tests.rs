use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(std::iter::once("planrelay").chain(line.split_whitespace()))
}

#[test]
fn verify_cli() {
    CommandLine::command().debug_assert();
}

#[test]
fn lines_that_are_understood() {
    for line in [
        "run x",
        "run -",
        "run",
        "run --plan p.json --context c.txt --respond results x",
        "submit x --run-id a.b:c-1",
        "submit --wait --timeout 5 x",
        "watch",
        "watch r",
        "watch r --after 1793680171000-0",
        "result r --wait",
        "show r",
        "list --status failed --limit 3",
        "schema",
        "schema completion",
        "-o json list",
        "list -o jsonl",
        "--print-config",
        "--model offline --prefix p --amqp-url amqp://a --redis-url redis://b --search-dir d list",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn lines_that_are_refused_as_usage() {
    for (line, kind) in [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("nonsense", ErrorKind::InvalidSubcommand),
        ("run -v -q x", ErrorKind::ArgumentConflict),
        ("run x y", ErrorKind::UnknownArgument),
        ("submit --timeout 5 x", ErrorKind::MissingRequiredArgument),
        ("submit --wait --timeout 0 x", ErrorKind::ValueValidation),
        ("submit --run-id a{b x", ErrorKind::ValueValidation),
        ("watch --after 1-0", ErrorKind::MissingRequiredArgument),
        ("watch r --after nonsense", ErrorKind::ValueValidation),
        ("result", ErrorKind::MissingRequiredArgument),
        ("result r --timeout 5", ErrorKind::MissingRequiredArgument),
        ("list --status odd", ErrorKind::InvalidValue),
        ("list --limit 0", ErrorKind::ValueValidation),
        ("schema odd", ErrorKind::InvalidValue),
        ("list -o yaml", ErrorKind::InvalidValue),
        ("run --model gpt x", ErrorKind::InvalidValue),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn every_status_can_be_asked_for() {
    use RunStatus::{Cancelled, Failed, Partial, Planning, Running, Succeeded, Summarizing};
    for status in [Planning, Running, Summarizing, Succeeded, Partial, Failed, Cancelled] {
        let parsed = parse(&format!("list --status {}", status.as_str())).unwrap();
        let Some(Command::List(args)) = parsed.command else { panic!("not list") };
        assert_eq!(args.status, Some(status));
    }
}

#[test]
fn every_command_has_an_example() {
    for command in CommandLine::command().get_subcommands() {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("planrelay {}", command.get_name())), "{}", command.get_name());
    }
}
