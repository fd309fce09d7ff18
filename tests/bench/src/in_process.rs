//! vnet's verbs as its library has them, without the start of a command: what a resident program pays.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use vnet::instance::Instance;
use vnet::kernel::Kernel;
use vnet::manage::{Manager, Mode, PortMapRequest};
use vnet::plan::{Op, Resource, State, expand};
use vnet::spec::{Protocol, Published, Target};
use vnet::store::Store;
use vnet_tests::lab::Lab;

use crate::generator::Sample;
use crate::latency::Percentiles;

/// What the process is to do that is started for this: vnet is about the network namespace of its process.
#[derive(Clone, Debug, clap::Args)]
pub struct Publish {
    /// What to publish, again and again
    #[arg(long)]
    published: Published,
    /// Where it leads
    #[arg(long)]
    target: Target,
    /// How often
    #[arg(long)]
    times: u32,
}

/// What it found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InProcess {
    /// Publishing, in microseconds.
    pub(crate) add: Sample,
    /// Taking back, in microseconds.
    pub(crate) remove: Sample,
    /// Writing the entries of all that is published beside it at once, in milliseconds.
    pub(crate) entries: Sample,
}

/// One in so many is done before, unmeasured.
const WARM_UP: u32 = 10;

/// Publishes a port and takes it back, in a process of its own on the host of a lab.
pub(crate) fn measure(lab: &Lab, published: &str, target: &str, times: u32) -> Result<InProcess> {
    let own = std::env::current_exe().context("find the own program")?;
    let own = own.to_str().context("a path in UTF-8")?.to_owned();
    let times = times.to_string();
    let words = ["publish", "--published", published, "--target", target, "--times", &times];
    let argv: Vec<String> = std::iter::once(own).chain(words.map(str::to_owned)).collect();
    let output = lab.host().run_with(&argv, &lab.environment());
    ensure!(output.status == Some(0), "{}", output.stderr.trim());
    serde_json::from_str(&output.stdout).context("understand what was measured in process")
}

/// Does it on the instance of the environment, with everything a command does but its start: the record is
/// locked and open, and the maps stay open once they have been used.
///
/// # Errors
/// When vnet refuses.
pub fn publish(order: &Publish) -> Result<InProcess> {
    let name = std::env::var("VNET_INSTANCE").context("VNET_INSTANCE names the instance")?;
    let instance = Instance::new(&name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let manager = Manager::open(&instance, Kernel::open(&instance).await?, Mode::Apply, now)?;
        let Publish { published, target, times } = order;
        let protocol = Protocol::default();
        let request = PortMapRequest {
            published: *published,
            target: target.clone(),
            protocol,
            allow_from: Vec::new(),
        };
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for nth in 0..times + times.div_ceil(WARM_UP) {
            let begun = Instant::now();
            let done = manager.publish(&request).await?;
            let published_at = Instant::now();
            ensure!(!done.ops.is_empty(), "{published} was published before");
            let done = manager.unpublish(published, protocol).await?;
            let gone_at = Instant::now();
            ensure!(!done.ops.is_empty(), "{published} was not published");
            if nth >= times.div_ceil(WARM_UP) {
                added.push(published_at - begun);
                removed.push(gone_at - published_at);
            }
        }
        let sample = |took| {
            let latency = Percentiles::of(took).context("nothing was measured")?;
            anyhow::Ok(Sample { latency: Some(latency), ..Sample::plain(latency.p50) })
        };
        let entries = write_entries(&instance, manager.into_machine()).await?;
        Ok(InProcess { add: sample(added)?, remove: sample(removed)?, entries })
    })
}

/// Takes the entries of all that is published out of the map, and puts them in again: what publishing all of it by one
/// command has the kernel do, which looks whether they are there and then writes them. Nothing else is in it: neither
/// requests nor the record.
async fn write_entries(instance: &Instance, kernel: Kernel) -> Result<Sample> {
    let mappings = Store::open(instance)?.begin()?.port_maps()?;
    let resources: Vec<Resource> = mappings.iter().flat_map(expand::port_map).collect();
    let [gone, made] = [Op::Remove, Op::Create]
        .map(|op: fn(Resource) -> Op| resources.iter().cloned().map(op).collect::<Vec<_>>());
    kernel.apply_joined(&gone).await.map_err(|(_, error)| error)?;
    let begun = Instant::now();
    let before = kernel.states(&resources).await?;
    kernel.apply_joined(&made).await.map_err(|(_, error)| error)?;
    let took = begun.elapsed();
    ensure!(before.iter().all(|state| *state == State::Absent), "entries that were taken out were there");
    let after = kernel.states(&resources).await?;
    ensure!(after.iter().all(|state| *state == State::Present), "entries that were put in were not there");
    Ok(Sample::plain(took.as_secs_f64() * 1e3))
}
