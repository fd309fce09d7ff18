//! Programs run by the lab: always with a deadline, always collected.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{PATIENCE, eventually};

/// How long a program may run before the lab kills it and fails.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What a program did.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command as typed.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it printed as complaints.
    pub stderr: String,
}

impl Output {
    /// Itself, if the program succeeded.
    ///
    /// # Panics
    /// With everything the program said, if it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "expected success: {self}");
        self
    }

    /// Itself, if the program exited with `code` and complained with each of `words`.
    ///
    /// # Panics
    /// With everything the program said, if not.
    #[track_caller]
    pub fn fails_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.status, Some(code), "expected exit code {code}: {self}");
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?} on standard error: {self}");
        }
        self
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("expected JSON ({e}): {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        match status {
            Some(code) => write!(f, "`{command}` exited with {code}")?,
            None => write!(f, "`{command}` was killed")?,
        }
        for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", abridged(text))?;
            }
        }
        Ok(())
    }
}

/// Beginning and end of a text: the verifier's complaints run to megabytes.
fn abridged(text: &str) -> String {
    const EACH_END: usize = 40;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let Some(left_out) = lines.len().checked_sub(2 * EACH_END).filter(|&count| count > 0) else {
        return lines.join("\n");
    };
    let (first, last) = (&lines[..EACH_END], &lines[lines.len() - EACH_END..]);
    format!("{}\n[{left_out} lines left out]\n{}", first.join("\n"), last.join("\n"))
}

/// Runs a program to its end.
pub(super) fn run(argv: &[String], environment: &[(String, String)]) -> Output {
    let command = shown(argv);
    let child = spawn(argv, environment);
    let pid = pid_of(&child);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(TIME_LIMIT).unwrap_or_else(|_| {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("`{command}` did not end within {TIME_LIMIT:?}: killed");
    });
    let output = output.unwrap_or_else(|e| panic!("wait for `{command}`: {e}"));
    Output {
        command,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that runs on until this is dropped.
#[derive(Debug)]
pub struct Background {
    command: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Background {
    pub(super) fn start(argv: &[String], environment: &[(String, String)]) -> Self {
        let mut child = spawn(argv, environment);
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("piped"), &lines);
        collect(child.stderr.take().expect("piped"), &lines);
        Self { command: shown(argv), child, lines }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// What it has printed so far, on both outputs.
    ///
    /// # Panics
    /// Never, unless the thread that collects it did.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("a collector panicked").clone()
    }

    /// Waits for a line with all of `words` and returns it.
    ///
    /// # Panics
    /// With what was printed instead, when it does not come.
    #[track_caller]
    #[must_use]
    pub fn line_with(&self, words: &[&str]) -> String {
        let fits = |line: &String| words.iter().all(|word| line.contains(word));
        eventually(
            || self.lines().into_iter().find(fits),
            || format!("a line with {words:?} from `{}`, which printed {:#?}", self.command, self.lines()),
        )
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill(self.pid(), signal);
    }

    /// Waits for its end and returns its exit code, `None` if a signal ended it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let command = self.command.clone();
        let child = &mut self.child;
        let ended = || child.try_wait().expect("our own child");
        eventually(ended, || format!("`{command}` to end within {PATIENCE:?}")).code()
    }

    /// Whether it is still there.
    ///
    /// # Panics
    /// Never: it is our own child.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl std::io::Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lines.lock().expect("a collector panicked").push(line);
        }
    });
}

fn spawn(argv: &[String], environment: &[(String, String)]) -> Child {
    let (program, args) = argv.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").env("NO_COLOR", "1").envs(environment.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|e| panic!("run `{}`: {e} (`cargo xtask setup` installs it)", shown(argv)))
}

pub(super) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"))
}

/// The command as somebody would type it.
pub(super) fn shown(argv: &[String]) -> String {
    let mut words = argv.to_vec();
    if let Some(name) = Path::new(&words[0]).file_name().and_then(|name| name.to_str()) {
        words[0] = name.to_owned();
    }
    words.join(" ")
}
