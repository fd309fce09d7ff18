//! What can go wrong between vnet and the kernel.

/// A failed dealing with the kernel: what was attempted, on what, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
}
