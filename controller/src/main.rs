//! `tram-controller`: see `tram-controller --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tram_controller::cli::main()
}
