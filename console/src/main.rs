use std::process::ExitCode;

fn main() -> ExitCode {
    planrelay::main(std::env::args_os())
}
