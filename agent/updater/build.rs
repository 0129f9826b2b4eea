//! How the linker writes the updater.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // 75 kB of relocations, read at each start and resident from then on, become 1: glibc reads them so since 2.36
    // (Debian 12, Ubuntu 24.04); the package asks for it. A linker that doesn't know the option warns and goes on.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
