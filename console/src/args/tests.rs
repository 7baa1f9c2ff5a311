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
        "run --approve --replan after-each-step --max-replans 0 x",
        "run --replan on-failure --deadline 60 --max-tokens 9 --max-model-calls 9 --max-tool-calls 0 --max-cost 0.5 x",
        "submit --approve --approval-timeout 60 --replan never x",
        "explain r -o json",
        "doctor",
        "doctor --no-model --management-url https://rabbitmq:15671 -o jsonl",
        "cancel r --reason why --by alice",
        "pause r",
        "resume r",
        "approve r --revision 2 --plan p.json --wait",
        "reject r --feedback -",
        "reject r --feedback -no --revision 1",
        "retry r --wait",
        "schema control-reply",
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
        ("run --replan always x", ErrorKind::InvalidValue),
        ("run --max-tokens -1 x", ErrorKind::UnknownArgument),
        ("run --max-cost much x", ErrorKind::ValueValidation),
        ("run --max-cost inf x", ErrorKind::ValueValidation),
        ("run --approval-timeout 5 x", ErrorKind::UnknownArgument),
        ("submit --approval-timeout 5 x", ErrorKind::MissingRequiredArgument),
        ("cancel", ErrorKind::MissingRequiredArgument),
        ("cancel a b", ErrorKind::UnknownArgument),
        ("reject r", ErrorKind::MissingRequiredArgument),
        ("edit r", ErrorKind::InvalidSubcommand),
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
    for status in RunStatus::ALL {
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

#[test]
fn the_management_url_holds_no_password() {
    let parse = |url: &str| CommandLine::try_parse_from(["planrelay", "doctor", "--management-url", url]);
    assert!(parse("http://rabbitmq:15672").is_ok());
    for (url, why) in [("http://u:p@rabbitmq:15672", "those of AMQP_URL are used"), ("rabbitmq:15672", "a URL such as")] {
        let said = parse(url).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
}
