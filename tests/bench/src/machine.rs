//! Where and when a run took place: what a reader has to know, and nothing that says whose machine it is.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of its CPU.
    pub cpu: String,
    /// How many it has.
    pub cores: usize,
    /// The kernel's release and architecture.
    pub kernel: String,
    /// Whether it says that it is virtual.
    pub virtual_machine: bool,
    /// Processes that ran or wanted to in the minute before.
    pub load_before: f64,
    /// Whether iptables and nftables see what a bridge passes on between its ports.
    pub bridge_netfilter: bool,
    /// Percent of the time that others on the same hardware took away during the run.
    pub stolen_percent: f64,
}

impl Machine {
    /// This one, before a run.
    ///
    /// # Errors
    /// When /proc is not as expected.
    pub fn look() -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo")?;
        Ok(Self {
            cpu: cpu_model(&cpuinfo).unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            kernel: format!("{} {}", read("/proc/sys/kernel/osrelease")?.trim(), std::env::consts::ARCH),
            virtual_machine: cpuinfo
                .lines()
                .any(|line| line.starts_with("flags") && line.contains(" hypervisor")),
            load_before: read("/proc/loadavg")?
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .context("no load in /proc/loadavg")?,
            bridge_netfilter: read("/proc/sys/net/bridge/bridge-nf-call-iptables")
                .is_ok_and(|it| it.trim() == "1"),
            stolen_percent: 0.0,
        })
    }
}

/// Time of all CPUs since boot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuTime {
    all: f64,
    stolen: f64,
}

impl CpuTime {
    /// Now.
    ///
    /// # Errors
    /// When /proc is not as expected.
    pub fn now() -> Result<Self> {
        Self::parse(&read("/proc/stat")?).context("no line for all CPUs in /proc/stat")
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; what guests had is part of user.
        Some(Self { all: times.get(..8)?.iter().sum(), stolen: *times.get(7)? })
    }

    /// Percent that were stolen since an earlier look.
    #[must_use]
    pub fn stolen_percent_since(&self, earlier: &Self) -> f64 {
        let all = self.all - earlier.all;
        if all > 0.0 { (self.stolen - earlier.stolen) / all * 100.0 } else { 0.0 }
    }
}

/// Today in UTC, as 2024-02-29.
///
/// # Errors
/// When the clock is before 1970.
pub fn today() -> Result<String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

/// The date so many days after 1 January 1970.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(19_783), (2024, 3, 1));
        assert_eq!(civil(20_088), (2024, 12, 31));
    }

    #[test]
    fn the_model_is_found() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: Some CPU 3 GHz\n").as_deref(),
            Some("Some CPU 3 GHz")
        );
        assert_eq!(cpu_model("processor: 0"), None);
    }

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let earlier = CpuTime::parse("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1\n").unwrap();
        let later = CpuTime::parse("cpu  50 0 50 80 0 0 0 20 5 0\n").unwrap();
        assert_eq!(later.stolen_percent_since(&earlier), 20.0);
        assert_eq!(later.stolen_percent_since(&later), 0.0);
        assert_eq!(CpuTime::parse("cpu 1 2 3"), None);
    }
}
