//! What the programs log, while somebody reads it.
//!
//! The level stands in the data path's configuration, which is written with the instance's lock held, as commands do. When
//! the process ends it is off again; after `kill -9` the next `vnet run`, or `vnet up`, sees to that.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use vnet_common::LogLevel;

use super::account::Account;
use super::only::Only;
use super::{Error, LAST_LOOK};
use crate::flow::LogRecord;
use crate::instance::Instance;
use crate::kernel::{Kernel, Log};
use crate::output::{LogEvent, Networks};
use crate::store::{self, Store};

/// Between two tries to get the instance's lock.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is asked what was lost.
const TICK: Duration = Duration::from_secs(1);
/// How long a command may hold the instance before logging is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names of what is numbered.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub(super) interfaces: BTreeMap<u32, String>,
    pub(super) networks: Networks,
    read: u32,
}

impl Labels {
    /// Reads them anew, once a second at most: interfaces and networks come and go.
    pub(super) fn renew(&mut self, instance: &Instance, kernel: &Kernel) {
        let now = Kernel::now();
        if now == self.read {
            return;
        }
        self.read = now;
        self.interfaces = kernel.interface_names().unwrap_or_default();
        if let Ok(Some(account)) = Account::read(instance) {
            self.networks = Networks(account.networks);
        }
    }
}

/// The programs' log.
#[derive(Debug)]
pub(super) struct ProgramLog {
    instance: Instance,
    level: LogLevel,
    labels: Labels,
    open: Option<(Kernel, Log)>,
}

impl ProgramLog {
    pub(super) fn new(instance: &Instance, level: LogLevel) -> Self {
        Self { instance: instance.clone(), level, labels: Labels::default(), open: None }
    }

    /// How often [`Self::look`] is to be called: never if that is zero.
    pub(super) fn tick(&self) -> Duration {
        if self.level == LogLevel::Off { Duration::ZERO } else { TICK }
    }

    /// Has the programs log what is wanted, and nothing that one before has left them to.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.open = None;
        let kernel = Kernel::open(&self.instance).await?;
        set_level(&self.instance, &kernel, LogLevel::Off, PATIENCE).await?;
        if self.level == LogLevel::Off {
            return Ok(());
        }
        let log = kernel.log()?;
        set_level(&self.instance, &kernel, self.level, PATIENCE).await?;
        self.open = Some((kernel, log));
        Ok(())
    }

    /// The next record; waits for ever if there is none. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) -> LogEvent {
        let Some((kernel, log)) = &mut self.open else { return pending().await };
        let Some(record) = log.next().await else { return pending().await };
        self.labels.renew(&self.instance, kernel);
        name(&record, &self.labels)
    }

    /// How many records were lost since the last time. Maps that were made anew meanwhile are read from then on.
    pub(super) async fn look(&mut self) -> Result<u64, Error> {
        match &mut self.open {
            Some((_, log)) if !log.is_outdated() => Ok(log.newly_lost()?),
            _ => self.begin().await.map(|()| 0),
        }
    }

    /// Has the programs log nothing any more.
    pub(super) async fn end(&mut self) {
        let Some((kernel, log)) = self.open.take() else { return };
        // What fails is done by the next `vnet run`, or `vnet up`.
        let _ = set_level(&self.instance, &kernel, LogLevel::Off, LAST_LOOK).await;
        drop(log);
    }
}

fn name(record: &LogRecord, labels: &Labels) -> LogEvent {
    LogEvent::new(record, &labels.interfaces, &labels.networks)
}

/// Has the programs log nothing if there is nobody to read it: one that did was killed.
///
/// # Errors
/// When the configuration cannot be read or written.
pub async fn silence(instance: &Instance, kernel: &Kernel) -> Result<(), Error> {
    if Only::is_taken(instance) {
        return Ok(());
    }
    set_level(instance, kernel, LogLevel::Off, PATIENCE).await
}

/// Sets the level, with the instance's lock, if it is another.
async fn set_level(
    instance: &Instance,
    kernel: &Kernel,
    level: LogLevel,
    patience: Duration,
) -> Result<(), Error> {
    let is_so =
        || Ok::<_, Error>(kernel.datapath_config()?.is_none_or(|config| config.log_level == level as u32));
    if is_so()? {
        return Ok(());
    }
    let end = Instant::now() + patience;
    loop {
        match Store::open_if_free(instance) {
            Ok(Some(_locked)) => return Ok(kernel.set_log_level(level)?),
            Ok(None) if Instant::now() < end => sleep(PAUSE).await,
            Ok(None) => return Err(Error::Busy { instance: instance.name().to_owned() }),
            Err(store::Error::NotUp { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
