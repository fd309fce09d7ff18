//! A program on a terminal of its own, and what the screen shows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use crate::lab::{Netns, eventually};

/// A program on a terminal, which ends with this.
pub struct OnTerminal {
    child: Child,
    master: File,
    /// The side of the program, held open so that it can be asked how it is set.
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
    before: Termios,
}

impl std::fmt::Debug for OnTerminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnTerminal").field("child", &self.child).finish_non_exhaustive()
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl OnTerminal {
    /// Starts a program in a namespace on a terminal of 120 columns and 30 rows.
    ///
    /// # Panics
    /// When there is no terminal, or no such program.
    #[must_use]
    pub fn start(netns: &Netns, argv: &[String], environment: &[(String, String)]) -> Self {
        let pair = openpty(&size(120, 30), None).expect("a terminal");
        let before = tcgetattr(&pair.slave).expect("how it is set");
        let standard = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        let (input, output, errors) = (standard(), standard(), standard());
        let child = netns.enter(|| {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).envs(environment.iter().cloned()).env("TERM", "xterm-256color");
            command.stdin(input).stdout(output).stderr(errors);
            command.spawn().unwrap_or_else(|e| panic!("run {argv:?}: {e}"))
        });
        let screen = Arc::new(Mutex::new(vt100::Parser::new(30, 120, 0)));
        let mut from = File::from(pair.master.try_clone().expect("a descriptor"));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                shown.lock().expect("nobody panicked").process(&bytes[..count]);
            }
        });
        Self { child, master: File::from(pair.master), slave: pair.slave, screen, before }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }

    /// Makes the terminal another size, as a window does that is dragged.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().expect("nobody panicked").screen_mut().set_size(rows, columns);
        let size = size(columns, rows);
        // SAFETY: the descriptor is a terminal's, and the size lives until the call is over.
        let failed = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        // It is not the program's controlling terminal, which would send this by itself.
        self.signal(Signal::SIGWINCH);
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit")), signal);
    }

    /// What the screen shows, line by line.
    ///
    /// # Panics
    /// Never, unless the thread that reads it did.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let parser = self.screen.lock().expect("nobody panicked");
        let (_, columns) = parser.screen().size();
        parser.screen().rows(0, columns).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits for a line with all of these words.
    ///
    /// # Panics
    /// With what the screen shows instead, when it does not come.
    #[track_caller]
    pub fn shows(&self, words: &[&str]) -> String {
        let fits = |line: &String| words.iter().all(|word| line.contains(word));
        eventually(|| self.lines().into_iter().find(fits), || format!("{words:?} on {:#?}", self.lines()))
    }

    /// Whether the program has the whole screen for itself.
    ///
    /// # Panics
    /// Never, unless the thread that reads it did.
    #[must_use]
    pub fn is_taken_over(&self) -> bool {
        self.screen.lock().expect("nobody panicked").screen().alternate_screen()
    }

    /// Waits for the end of the program: its exit code, `None` if a signal ended it. The terminal must be as it was.
    ///
    /// # Panics
    /// When it does not end, or has left the terminal otherwise.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let ended =
            eventually(|| child.try_wait().expect("our own child"), || "the program to end".to_owned());
        let restored = || {
            let parser = self.screen.lock().expect("nobody panicked");
            let screen = parser.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        };
        eventually(restored, || "the screen to be given back".to_owned());
        let after = tcgetattr(&self.slave).expect("how it is set");
        assert_eq!(after.local_flags, self.before.local_flags, "echo, lines, signals");
        assert_eq!(after.input_flags, self.before.input_flags);
        assert_eq!(after.output_flags, self.before.output_flags);
        ended.code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
