//! One measurement: a fresh server, a client, and the CPUs they stay on.

use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vnet_tests::lab::PATIENCE;

use crate::case::Kind;
use crate::generator::{READY, Rate, Sample, cpus, pin};
use crate::rival::Path;

/// How often a client that takes long is looked at.
const LOOK_ROUND: Duration = Duration::from_millis(100);

/// What measures.
#[derive(Debug)]
pub struct Rig {
    /// The program that is client and server.
    generator: PathBuf,
    /// For clients, and servers that share it.
    first: usize,
    /// For servers of one-way traffic; the same where there is only one.
    second: usize,
}

impl Rig {
    /// Measures with the load generator at this path.
    ///
    /// # Errors
    /// When the kernel does not tell the CPUs.
    pub fn new(generator: &FilePath) -> Result<Self> {
        let cpus = cpus()?;
        let first = *cpus.first().context("no CPU to run on")?;
        let second = cpus.get(1).copied().unwrap_or(first);
        Ok(Self { generator: generator.to_owned(), first, second })
    }

    /// Keeps the calling thread where clients are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stay(&self) -> Result<()> {
        pin(self.first)
    }

    /// Keeps the calling thread where the two of a dialogue are not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stay_apart(&self) -> Result<()> {
        pin(self.second)
    }

    /// Keeps a thread of the kernel where clients are, and has it go before them.
    ///
    /// # Errors
    /// When `taskset` or `chrt` fails.
    pub fn keep(&self, thread: &str) -> Result<()> {
        let cpu = self.first.to_string();
        for argv in
            [["taskset", "--cpu-list", "--pid", &cpu, thread], ["chrt", "--fifo", "--pid", "1", thread]]
        {
            let done = Command::new(argv[0])
                .args(&argv[1..])
                .output()
                .with_context(|| format!("start {}", argv[0]))?;
            if !done.status.success() {
                bail!("{}: {}", argv.join(" "), String::from_utf8_lossy(&done.stderr).trim());
            }
        }
        Ok(())
    }

    /// Measures once.
    ///
    /// # Errors
    /// With what server or client complained of.
    pub fn measure(&self, path: &Path, kind: Kind, count: u64) -> Result<Sample> {
        let server_cpu = if kind.shares_cpu() { self.first } else { self.second };
        let serve = ["serve", "--kind", kind.name(), "--port", &path.port.to_string(), "--cpu"];
        let server = path.server.start_with(&self.argv(&serve, server_cpu)?, &[]);
        // Panics with what it printed instead.
        let _ = server.line_with(&[READY]);
        let (target, count) = (path.dials.to_string(), count.to_string());
        let load = ["load", "--kind", kind.name(), "--target", &target, "--count", &count, "--cpu"];
        let client = path.client.run_with(&self.argv(&load, self.first)?, &[]);
        if client.status != Some(0) {
            let served =
                server.lines().into_iter().filter(|line| line != READY).collect::<Vec<_>>().join("; ");
            let said = client.stderr.trim();
            bail!("{}{}{served}", said, if served.is_empty() { "" } else { "; the server: " });
        }
        serde_json::from_str(&client.stdout).context("understand the client")
    }

    /// Opens connections for so long, as fast as they go; `check` is called now and then.
    ///
    /// # Errors
    /// With what server or client complained of.
    pub fn sustain(&self, path: &Path, duration: Duration, check: &dyn Fn()) -> Result<Rate> {
        let (kind, port) = (Kind::Crr.name(), path.port.to_string());
        let serve = ["serve", "--kind", kind, "--port", &port, "--cpu"];
        let server = path.server.start_with(&self.argv(&serve, self.first)?, &[]);
        let _ = server.line_with(&[READY]);
        let (target, seconds) = (path.dials.to_string(), duration.as_secs().to_string());
        let load = ["sustain", "--target", &target, "--seconds", &seconds, "--cpu"];
        let mut client = path.client.start_with(&self.argv(&load, self.first)?, &[]);
        let deadline = Instant::now() + duration + PATIENCE;
        let mut said = 0;
        while client.is_running() {
            check();
            ensure!(Instant::now() < deadline, "the client does not end: {:?}", client.lines());
            thread::sleep(LOOK_ROUND);
            for line in client.lines().iter().skip(said).filter(|line| !line.starts_with('{')) {
                eprintln!("    {line}");
                said += 1;
            }
        }
        let status = client.wait();
        if status != Some(0) {
            bail!("{}", client.lines().join("; "));
        }
        serde_json::from_str(&client.line_with(&["{"])).context("understand the client")
    }

    fn argv(&self, words: &[&str], cpu: usize) -> Result<Vec<String>> {
        let generator = self.generator.to_str().context("a path in UTF-8")?.to_owned();
        let words = words.iter().map(|&word| word.to_owned());
        Ok(std::iter::once(generator).chain(words).chain([cpu.to_string()]).collect())
    }
}
