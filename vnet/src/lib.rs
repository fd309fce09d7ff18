//! vnet's control plane.
//!
//! ```text
//! cli                     what people type; output: what they read
//!  |-> events             what happens, for as many readers as there are
//!  |-> graph              the topology as a drawing: pure
//!  |-> run                the resident part: hears what happens around an instance, and has it repaired
//!  |    '-> metrics       what Prometheus is told: pure
//!  |-> top                what goes on, as tables: counted elsewhere, drawn here
//!  |-> file               an instance described in TOML: read, written, compared: pure
//!  '-> manage             the verbs: what each command does to an instance, whoever asks
//!       |-> store         what was asked for, on disk
//!       '-> reconcile     observe, plan, apply
//!            |-> plan     from what is wanted and what is there to the steps between: pure
//!            |    '-> spec, ipam, ours     what is wanted, parsed; which address is next; what things are called
//!            |-> firewall      what the host's own packet filter would say: pure
//!            |-> trace         what would become of a described packet, and why: pure
//!            |-> flow     flows: paired, selected, followed, counted: pure
//!            '-> kernel   netlink, BPF, namespaces: the only module that touches the system
//! ```
//!
//! Modules use what is below them and nothing above.

pub mod cli;
pub mod events;
pub mod file;
pub mod firewall;
pub mod flow;
pub mod graph;
pub mod instance;
pub mod ipam;
pub mod kernel;
pub mod manage;
pub mod metrics;
pub mod names;
pub mod ours;
pub mod output;
pub mod plan;
pub mod reconcile;
pub mod run;
pub mod runtime;
pub mod spec;
pub mod store;
pub mod top;
pub mod trace;
