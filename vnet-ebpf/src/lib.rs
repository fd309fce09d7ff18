//! Empty: it lets Cargo see a dependency. The programs are in `main.rs`.
#![no_std]
