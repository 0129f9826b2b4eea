//! `tram-controller`: see `tram-controller --help`.

use std::process::ExitCode;

/// Ten thousand links come and go in minutes, and what each held for its first words must go back to the machine: glibc's
/// allocator keeps twice as much (see `swarm.kib_per_agent` of `make bench`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tram_controller::cli::main()
}
