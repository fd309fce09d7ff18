//! vnet's control plane.

pub mod instance;
pub mod kernel;
pub mod plan;
