//! `planrelay doctor`.

use clap::Args;

use crate::exit::DOCTOR_EXIT_CODES;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Ask the model nothing; its endpoint is only asked which models it has.
    #[arg(long)]
    pub no_model: bool,
    /// Where RabbitMQ's management API is, if not on port 15672 of its host. It tells policies and what is in work.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub management_url: Option<String>,
}

/// The end of its long help.
pub(super) fn long_help() -> String {
    format!("{HELP}\n\n{DOCTOR_EXIT_CODES}")
}

const HELP: &str = "\
Examples:
  planrelay doctor
  planrelay doctor --no-model
  planrelay doctor -o json | jq '.checks[] | select(.status == \"failed\")'
  planrelay doctor --management-url http://rabbitmq:15672

✓ is well, ! works with a risk or in part, ✗ does not work, - could not be looked at. Nothing is changed: queues are compared, not made;
permissions show in requests that the server refuses as invalid once it has found them permitted. The model is asked three small questions,
some 1,500 tokens in all, more where a rung is refused or the model reasons; with --no-model none. It looks from where it runs and as the user in AMQP_URL and REDIS_URL.";

fn http_url(text: &str) -> Result<String, String> {
    if text.contains('@') {
        // It would be printed with its password.
        return Err("a URL without user and password: those of AMQP_URL are used".to_owned());
    }
    let is_url = ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    if is_url { Ok(text.to_owned()) } else { Err("a URL such as http://host:15672".to_owned()) }
}
