//! The resident part: what happens around an instance is heard, and what it changed is brought back.
//!
//! ```text
//! kernel::Watch --> Schedule --> manage: repair (with the instance's lock) --> told
//!    signals ---------^  ^-------- what could not be repaired, later and later
//! --metrics: an HTTP server beside it, which reads the maps when it is asked
//! ```
//!
//! The data path needs none of this: pinned programs and maps do their work whether this lives or not, and every command
//! works without it and beside it. It holds the instance's lock for as long as a look takes, and no descriptor of a map,
//! a program or a namespace between two looks.

mod account;
mod files;
mod gather;
mod log;
mod only;
mod resolver;
mod schedule;
mod serve;
mod service;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use vnet_common::LogLevel;

use self::files::Files;
pub use self::files::{forget_resolver, forget_resolver_of, stale_resolver_files};
use self::gather::Gatherer;
pub use self::log::silence;
use self::log::{Labels, ProgramLog};
use self::only::Only;
use self::resolver::{Questions, Resolver};
use self::schedule::{Look, Schedule};
pub use self::serve::Listen;
use self::service::Service;
use crate::events;
use crate::instance::Instance;
use crate::kernel::{self, Change, Hooks, Kernel, Watch};
use crate::manage::{self, Manager, Object, Repair, Repaired};
use crate::metrics::LookSample;
use crate::output::{DropEvent, Level, LogEvent, News, RunEvent};
use crate::store::{self, Store};

/// How long a look may take to finish when the process is to end. What it leaves half done is finished by the next one,
/// or by the next `vnet up`.
const LAST_LOOK: Duration = Duration::from_millis(700);
/// How long somebody else may have the instance before that is said.
const WAITING: Duration = Duration::from_secs(2);

/// What is asked of the resident part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Between two looks at everything, for what there are no news of.
    pub check: Duration,
    /// Between two looks at what is attached where programs should be, of which there are no news either; none if zero.
    pub hooks: Duration,
    /// Where metrics are served.
    pub metrics: Option<Listen>,
    /// Whether drops are told.
    pub drops: bool,
    /// How much is told.
    pub level: Level,
    /// How much the programs log, as long as this runs.
    pub program_log: LogLevel,
    /// The domain below which names of endpoints are answered at the gateways; they are not without.
    pub resolver: Option<String>,
}

/// Something that is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What the resident part has to say.
    News(RunEvent),
    /// A packet that was dropped.
    Drop(DropEvent),
    /// What a program has logged.
    Log(LogEvent),
}

/// Why there is no resident part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// There is one already.
    #[error("`vnet run` is at work for instance {instance} already, as process {pid}")]
    AlreadyRunning {
        /// The instance.
        instance: String,
        /// Its process.
        pid: String,
    },
    /// Somebody has the instance for too long.
    #[error("wait for a command that is changing instance {instance}: try again")]
    Busy {
        /// The instance.
        instance: String,
    },
    /// A file of its own.
    #[error("lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody can be served.
    #[error("serve metrics on {listen}")]
    Serve {
        /// Where.
        listen: Listen,
        /// Why.
        source: io::Error,
    },
    /// Nobody can answer names.
    #[error("start a thread that answers names")]
    Resolver(#[source] io::Error),
    /// Signals cannot be heard.
    #[error("listen to signals")]
    Signals(#[source] io::Error),
}

/// What has been counted.
#[derive(Clone, Debug, Default)]
struct Counts {
    changes: BTreeMap<&'static str, u64>,
    repairs: BTreeMap<&'static str, u64>,
    looks: BTreeMap<&'static str, u64>,
    failing: BTreeMap<&'static str, u64>,
    /// Questions for names, if they are answered.
    questions: Option<Arc<Questions>>,
    last: Option<LookSample>,
}

impl Counts {
    /// Everything that may be counted, none of it yet.
    fn new() -> Self {
        Self {
            changes: Change::KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            repairs: Object::KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            looks: ["ok", "repaired", "failed", "busy"].into_iter().map(|outcome| (outcome, 0)).collect(),
            failing: Object::KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            questions: None,
            last: None,
        }
    }
}

type Tell = Rc<dyn Fn(Told)>;

/// Applies files: gives what is to be said of that, or why it cannot be done and everything is as it was.
pub type Apply = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<String>, String>>>>>;

/// Runs until it is told to end, or the instance is taken down. `apply` is called when it is told to apply files again.
///
/// # Errors
/// When the instance is not up, another process does this for it, or the kernel tells nothing.
pub async fn run(
    instance: &Instance,
    options: Options,
    apply: Option<Apply>,
    tell: impl Fn(Told) + 'static,
) -> Result<(), Error> {
    LocalSet::new().run_until(Resident::start(instance, options, apply, Rc::new(tell))).await
}

/// Refuses to be a second one for an instance.
///
/// # Errors
/// When there is one.
pub fn check_only(instance: &Instance) -> Result<(), Error> {
    if Only::is_taken(instance) { Only::take(instance).map(drop) } else { Ok(()) }
}

struct Resident {
    instance: Instance,
    options: Options,
    tell: Tell,
    service: Service,
    watch: Watch,
    schedule: Schedule,
    hooks: Hooks,
    counts: Rc<RefCell<Counts>>,
    /// What was worth knowing at the last look.
    notes: BTreeSet<String>,
    /// The interfaces and the endpoints that are the instance's, and of which version of the record that is.
    interfaces: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    stamp: Option<Stamp>,
    /// Since when somebody else has had the instance, and whether that was said.
    busy: Option<(Instant, bool)>,
    log: ProgramLog,
    apply: Option<Apply>,
    resolver: Option<Resolver>,
}

/// Tells one version of a file from another.
type Stamp = (u64, i64, i64, u64);

fn stamp_of(instance: &Instance) -> Option<Stamp> {
    let metadata = fs::metadata(instance.state_file()).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

/// What came of a look.
enum Looked {
    Done,
    /// The instance is not up any more.
    Gone,
}

/// Who wants it to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let of = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    /// Waits until it is to end.
    async fn ended(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

impl Resident {
    async fn start(
        instance: &Instance,
        options: Options,
        apply: Option<Apply>,
        tell: Tell,
    ) -> Result<(), Error> {
        let mut signals = Signals::new()?;
        if !Store::exists(instance)? {
            return Err(store::Error::not_up(instance).into());
        }
        // What may be missing is said before anything else.
        drop(Kernel::open(instance).await?);
        let _only = Only::take(instance)?;
        let counts = Rc::new(RefCell::new(Counts::new()));
        if let Some(listen) = &options.metrics {
            let gatherer = Gatherer::new(instance, Rc::clone(&counts));
            serve::start(listen, gatherer)
                .map_err(|source| Error::Serve { listen: listen.clone(), source })?;
        }
        // Of one that was killed.
        Files::of(instance).remove();
        let resolver = options.resolver.as_deref().map(|domain| {
            let questions = counts.borrow_mut().questions.insert(Arc::default()).clone();
            Resolver::start(instance, domain, questions).map_err(Error::Resolver)
        });
        let resolver = resolver.transpose()?;
        let mut resident = Self {
            instance: instance.clone(),
            service: Service::new(),
            // Before the first look, so that nothing between is missed.
            watch: Kernel::watch(instance)?,
            schedule: Schedule::new(options.check, Instant::now()),
            hooks: Kernel::hooks(instance)?,
            counts,
            notes: BTreeSet::new(),
            interfaces: BTreeSet::new(),
            endpoints: BTreeSet::new(),
            stamp: None,
            busy: None,
            log: ProgramLog::new(instance, options.program_log),
            apply,
            resolver,
            options,
            tell,
        };
        if resident.options.drops {
            tokio::task::spawn_local(tell_drops(instance.clone(), Rc::clone(&resident.tell)));
        }
        resident.log.begin().await?;
        let worked = resident.work(&mut signals).await;
        resident.log.end().await;
        if let Some(resolver) = &mut resident.resolver {
            resolver.end();
        }
        worked
    }

    async fn work(&mut self, signals: &mut Signals) -> Result<(), Error> {
        let Signals { terminate, interrupt, hang_up } = signals;
        let never = Duration::from_secs(u64::from(u32::MAX));
        let ticks = |every: Duration| {
            let mut ticks = interval(if every.is_zero() { never } else { every });
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.reset();
            ticks
        };
        let mut hook_ticks = ticks(self.options.hooks);
        let mut watchdog_ticks = ticks(self.service.watchdog().unwrap_or_default());
        let mut log_ticks = ticks(self.log.tick());
        let mut is_ready = false;
        loop {
            let due = self.schedule.due();
            tokio::select! {
                why = Signals::ended(terminate, interrupt) => {
                    self.stop(&format!("{why}: everything stays as it is"));
                    return Ok(());
                }
                _ = hang_up.recv() => {
                    self.service.reloading();
                    is_ready = false;
                    if let Some(why) = self.reload_until_ended(terminate, interrupt).await {
                        self.stop(&why);
                        return Ok(());
                    }
                }
                _ = watchdog_ticks.tick() => self.service.alive(),
                _ = hook_ticks.tick() => self.look_at_hooks()?,
                record = self.log.next() => (self.tell)(Told::Log(record)),
                _ = log_ticks.tick() => self.look_at_log().await,
                changes = self.watch.next() => changes?.iter().for_each(|change| self.hear(change)),
                () = sleep_until(due.into()) => {
                    if let Some(why) = self.look_until_ended(terminate, interrupt).await? {
                        self.stop(&why);
                        return Ok(());
                    }
                    if !is_ready && self.counts.borrow().last.is_some() {
                        is_ready = true;
                        self.service.ready();
                    }
                }
            }
        }
    }

    /// Applies the files again, if there are such, and has everything looked at; says why the process is to end, if it is.
    async fn reload_until_ended(&mut self, terminate: &mut Signal, interrupt: &mut Signal) -> Option<String> {
        let applies = if self.apply.is_some() { "files are applied, and " } else { "" };
        self.say(News::Reloading, format!("SIGHUP: {applies}everything is looked at"));
        if let Some(apply) = &self.apply {
            let mut applied = apply();
            let result = tokio::select! {
                result = &mut applied => result,
                why = Signals::ended(terminate, interrupt) => {
                    let finished = timeout(LAST_LOOK, applied).await.is_ok();
                    let how = if finished { "are applied" } else { "may be applied in part; `vnet apply` does the rest" };
                    return Some(format!("{why}: the files {how}"));
                }
            };
            match result {
                Ok(lines) => lines.into_iter().for_each(|line| self.say(News::Applied, line)),
                Err(why) => self.say(News::Refused, format!("everything stays as it was: {why}")),
            }
        }
        self.schedule.at_once(Instant::now());
        None
    }

    /// Takes the look that is due; says why the process is to end, if it is.
    async fn look_until_ended(
        &mut self,
        terminate: &mut Signal,
        interrupt: &mut Signal,
    ) -> Result<Option<String>, Error> {
        let mut look = std::pin::pin!(self.look());
        tokio::select! {
            looked = &mut look => Ok(match looked? {
                Looked::Done => None,
                Looked::Gone => Some("the instance was taken down".to_owned()),
            }),
            why = Signals::ended(terminate, interrupt) => {
                let finished = timeout(LAST_LOOK, look).await.is_ok();
                let how = if finished {
                    "everything stays as it is"
                } else {
                    "what was being repaired may be repaired in part; `vnet up` does the rest"
                };
                Ok(Some(format!("{why}: {how}")))
            }
        }
    }

    /// Takes the look that is due.
    async fn look(&mut self) -> Result<Looked, Error> {
        let began = Instant::now();
        let look = self.schedule.begin(began);
        let kernel = Kernel::open(&self.instance).await?;
        let repaired = match Manager::open_if_free(&self.instance, kernel, wall_clock().as_secs()) {
            Err(manage::Error::Store(store::Error::NotUp { .. })) => return Ok(Looked::Gone),
            Ok(None) => {
                self.wait_for_others(look, began);
                return Ok(Looked::Done);
            }
            Ok(Some(manager)) => {
                let repaired = self.repair(&manager, &look).await;
                drop(manager);
                repaired
            }
            Err(error) => Err(error),
        };
        self.busy = None;
        let mut names = Vec::new();
        if let Some(resolver) = &mut self.resolver {
            let refreshed = resolver.refresh().await;
            names = refreshed.notes;
            if refreshed.again {
                self.schedule.heard(&Change::Record, Instant::now());
            }
        }
        let mut repaired = match repaired {
            Err(manage::Error::Store(store::Error::NotUp { .. })) => return Ok(Looked::Gone),
            Ok(repaired) => repaired,
            Err(error) => Repaired {
                repairs: vec![Repair::of_nothing(Object::Instance, &error)],
                notes: self.notes.iter().cloned().collect(),
                interfaces: self.interfaces.clone(),
                endpoints: self.endpoints.clone(),
                ..Repaired::default()
            },
        };
        repaired.notes.extend(names);
        self.finish(look, repaired, began)?;
        Ok(Looked::Done)
    }

    /// Repairs what is to be looked at. The first look takes over from another build of vnet, as this process has been
    /// started since; what takes over later is not undone.
    async fn repair(&self, manager: &Manager<Kernel>, look: &Look) -> Result<Repaired, manage::Error> {
        let first = self.counts.borrow().last.is_none();
        let taken_over = if first { manager.take_over().await? } else { None };
        if let Some(failed) = taken_over.as_ref().filter(|repair| repair.failure.is_some()) {
            return Ok(Repaired { repairs: vec![failed.clone()], ..Repaired::default() });
        }
        let mut repaired = manager.repair(&look.scope, &look.later).await?;
        repaired.repairs.splice(0..0, taken_over);
        Ok(repaired)
    }

    /// Says and counts what came of a look.
    fn finish(&mut self, look: Look, repaired: Repaired, began: Instant) -> Result<(), Error> {
        let now = Instant::now();
        let verdicts = self.schedule.end(look, &repaired.repairs, (began, now));
        let mut done = 0;
        for repair in &repaired.repairs {
            let Repair { object, found, ops, failure } = repair;
            // What cannot be repaired is said once.
            let is_news = failure.is_none() || verdicts.failed.iter().any(|(failed, ..)| failed == object);
            for text in found.iter().filter(|_| is_news) {
                self.say_of(News::Noticed, object, text.clone());
            }
            for op in ops {
                self.say_of(News::Repaired, object, op.to_string());
            }
            if failure.is_none() {
                done += 1;
                *self.counts.borrow_mut().repairs.entry(object.kind()).or_default() += 1;
            }
        }
        for (object, why, again) in verdicts.failed {
            let event = RunEvent::new(News::Failed, why).of(object.kind(), object.to_string());
            self.tell(event.again_in(again.as_secs_f64()));
        }
        for object in verdicts.recovered {
            self.say_of(News::Recovered, &object, "as recorded again".to_owned());
        }
        if repaired.forgotten > 0 {
            let text = format!("{} entries of flows of addresses that the host has lost", repaired.forgotten);
            self.say(News::Forgotten, text);
        }
        let notes: BTreeSet<String> = repaired.notes.into_iter().collect();
        for note in notes.difference(&self.notes) {
            self.say(News::Note, note.clone());
        }
        self.notes = notes;
        self.interfaces = repaired.interfaces;
        self.endpoints = repaired.endpoints;
        self.stamp = self.stamp_now();
        if self.watch.renew()? {
            self.hear(&Change::Pins);
        }
        if self.watch.follow_cgroups(&repaired.cgroups) {
            self.hear(&Change::Cgroup);
        }
        self.count(done, now - began);
        Ok(())
    }

    fn count(&mut self, done: usize, took: Duration) {
        let failing = self.schedule.failing();
        let failed: u64 = failing.values().sum();
        let outcome = match (failed, done) {
            (0, 0) => "ok",
            (0, _) => "repaired",
            _ => "failed",
        };
        let mut counts = self.counts.borrow_mut();
        *counts.looks.entry(outcome).or_default() += 1;
        counts.failing.values_mut().for_each(|count| *count = 0);
        counts.failing.extend(failing);
        let took = took.as_secs_f64();
        let first = counts.last.is_none();
        counts.last = Some(LookSample { time: wall_clock().as_secs_f64(), took, ok: failed == 0 });
        drop(counts);
        if first {
            self.say(News::Started, format!("instance {} is looked after", self.instance.name()));
        }
        self.say(News::Looked, format!("{outcome}, in {:.1} ms", took * 1000.0));
        self.service.status(match failed {
            0 => "everything is as recorded".to_owned(),
            1 => "one thing cannot be brought back: see the log".to_owned(),
            failed => format!("{failed} things cannot be brought back: see the log"),
        });
    }

    /// A command has the instance.
    fn wait_for_others(&mut self, look: Look, now: Instant) {
        *self.counts.borrow_mut().looks.entry("busy").or_default() += 1;
        self.schedule.put_back(look, now);
        let (since, said) = self.busy.get_or_insert((now, false));
        if !*said && now - *since > WAITING {
            *said = true;
            let holder = Store::holder(&self.instance).unwrap_or_else(|| "another command".to_owned());
            self.say(News::Waiting, format!("for {holder}, which is changing the instance"));
        }
    }

    fn hear(&mut self, change: &Change) {
        let is_foreign = match change {
            Change::Interface { name } => !self.interfaces.contains(name),
            Change::Namespace { name } => !self.endpoints.contains(name),
            _ => false,
        };
        // It may have become the instance's since the last look.
        let is_ignored = is_foreign && self.stamp_now() == self.stamp;
        if self.options.level >= Level::Debug {
            let how = if is_ignored { ", not of the instance" } else { "" };
            self.say(News::Heard, format!("{change}{how}"));
        }
        if is_ignored {
            return;
        }
        *self.counts.borrow_mut().changes.entry(change.kind()).or_default() += 1;
        if *change != (Change::Route { default: false }) {
            self.schedule.heard(change, Instant::now());
        }
    }

    /// Programs that are attached or detached make no news. What a look has attached itself is looked at once more:
    /// were that left out, so would be what somebody detached during the look.
    fn look_at_hooks(&mut self) -> Result<(), Error> {
        let hooks = Kernel::hooks(&self.instance)?;
        for interface in hooks.differences(&self.hooks) {
            self.hear(&Change::Attachment { interface });
        }
        self.hooks = hooks;
        Ok(())
    }

    /// What of the programs' log found no room is said, and maps that were made anew are read instead of the old ones.
    async fn look_at_log(&mut self) {
        match self.log.look().await {
            Ok(0) => {}
            Ok(lost) => {
                self.say(News::Note, format!("{lost} records of the programs are lost: there were too many"));
            }
            Err(error) => {
                let why = anyhow::Error::from(error);
                self.say(News::Note, format!("what the programs log cannot be read: {why:#}"));
            }
        }
    }

    /// Of which version the record is.
    fn stamp_now(&self) -> Option<Stamp> {
        stamp_of(&self.instance)
    }

    fn stop(&self, why: &str) {
        self.service.stopping();
        self.say(News::Stopping, why.to_owned());
    }

    fn say(&self, news: News, text: String) {
        self.tell(RunEvent::new(news, text));
    }

    fn say_of(&self, news: News, object: &Object, text: String) {
        self.tell(RunEvent::new(news, text).of(object.kind(), object.to_string()));
    }

    fn tell(&self, event: RunEvent) {
        if event.level <= self.options.level {
            (self.tell)(Told::News(event));
        }
    }
}

/// Tells of packets as they are dropped, for as long as there is a data path.
async fn tell_drops(instance: Instance, tell: Tell) {
    if let Err(error) = follow_drops(&instance, &tell).await {
        let text = format!("drops are not told any more: {:#}", anyhow::Error::from(error));
        tell(Told::News(RunEvent::new(News::Note, text)));
    }
}

async fn follow_drops(instance: &Instance, tell: &Tell) -> Result<(), events::Error> {
    let kernel = Kernel::open(instance).await?;
    let mut labels = Labels::default();
    let mut each = |event: &vnet_common::Event| {
        labels.renew(instance, &kernel);
        if let Some(drop) = DropEvent::new(event, &labels.interfaces, &labels.networks) {
            tell(Told::Drop(drop));
        }
        true
    };
    events::follow(instance, &kernel, &mut each).await
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
