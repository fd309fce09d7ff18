//! How a scene is shown: commands as typed, what they print, whether it held.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use vnet_tests::interrupt::{Interrupt, Interrupted};
use vnet_tests::lab::{Background, Lab, Netns, Output, Snapshot};

/// Lines of an output that are shown.
const EXCERPT: usize = 8;

/// One row of the table of scenarios.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) row: &'static str,
    pub(crate) title: &'static str,
    pub(crate) play: fn(&Play<'_>),
}

/// The stage: a lab, and what has been seen on it.
pub(crate) struct Play<'a> {
    pub(crate) lab: &'a Lab,
    /// The host before anything was played.
    pub(crate) before: Snapshot,
    interrupt: &'a Interrupt,
    colour: bool,
    /// Row and title of each scene so far, how many checks held and how many did not.
    results: RefCell<Vec<(&'static str, &'static str, u32, u32)>>,
    held: Cell<u32>,
    failed: Cell<u32>,
    /// Servers that later scenes use.
    servers: RefCell<Vec<Background>>,
}

impl<'a> Play<'a> {
    pub(crate) fn new(lab: &'a Lab, interrupt: &'a Interrupt) -> Self {
        Self {
            lab,
            before: lab.snapshot(),
            interrupt,
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            results: RefCell::default(),
            held: Cell::default(),
            failed: Cell::default(),
            servers: RefCell::default(),
        }
    }

    /// Plays a scene. Whatever it panics with is shown as a check that did not hold.
    pub(crate) fn scene(&self, scene: &Scene) {
        self.interrupt_or(|| {
            self.say(&format!("\n{}", self.bold(&format!("{}  {}", scene.row, scene.title))));
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (scene.play)(self))) {
                if panic.is::<Interrupted>() {
                    std::panic::resume_unwind(panic);
                }
                self.check(&message(&*panic), false);
            }
            self.results.borrow_mut().push((scene.row, scene.title, self.held.take(), self.failed.take()));
        });
    }

    /// Does nothing any more once somebody has asked to stop.
    fn interrupt_or(&self, act: impl FnOnce()) {
        if self.interrupt.happened() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(act)) {
            Err(panic) if !panic.is::<Interrupted>() => std::panic::resume_unwind(panic),
            _ => {}
        }
    }

    /// Runs vnet on the host.
    pub(crate) fn vnet(&self, args: &[&str]) -> Output {
        self.run(self.lab.host(), &[&["vnet"], args].concat())
    }

    /// Runs a program somewhere and shows what it prints.
    pub(crate) fn run(&self, place: &Netns, argv: &[&str]) -> Output {
        let output = self.quietly(place, argv);
        self.excerpt(&output);
        output
    }

    /// Runs a program somewhere and shows only that it ran.
    pub(crate) fn quietly(&self, place: &Netns, argv: &[&str]) -> Output {
        self.interrupt.check();
        self.typed(place, argv);
        place.run_with(&resolve(argv), &self.lab.environment())
    }

    /// Starts a server somewhere; it serves until the curtain.
    pub(crate) fn serve(&self, place: &Netns, argv: &[&str]) {
        self.interrupt.check();
        self.typed(place, &[argv, &["&"]].concat());
        self.servers.borrow_mut().push(self.start(place, argv));
    }

    /// Starts a program somewhere without showing it.
    pub(crate) fn start(&self, place: &Netns, argv: &[&str]) -> Background {
        place.start_with(&resolve(argv), &self.lab.environment())
    }

    pub(crate) fn stop_servers(&self) {
        self.servers.borrow_mut().clear();
    }

    /// Shows lines of an output.
    pub(crate) fn show<'l>(&self, lines: impl IntoIterator<Item = &'l str>) {
        for line in lines {
            self.say(&format!("     {}", self.dim(&self.plain_columns(line))));
        }
    }

    /// Shows whether something held.
    pub(crate) fn check(&self, what: &str, holds: bool) {
        let counter = if holds { &self.held } else { &self.failed };
        counter.set(counter.get() + 1);
        let mark = if holds { self.paint("32", "✔") } else { self.paint("31", "✘") };
        self.say(&format!("   {mark} {}", self.plain(what)));
    }

    pub(crate) fn everything_held(&self) -> bool {
        !self.interrupt.happened()
            && self.results.borrow().iter().all(|&(_, _, held, failed)| held > 0 && failed == 0)
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.interrupt.happened()
    }

    /// What was asked to stop has stopped; the rest may be played.
    pub(crate) fn resume(&self) {
        self.interrupt.forget();
    }

    /// The table at the end.
    pub(crate) fn summary(&self) {
        self.say(&format!("\n{}", self.bold("Summary")));
        for &(row, title, held, failed) in self.results.borrow().iter() {
            let mark =
                if failed == 0 && held > 0 { self.paint("32", "✔") } else { self.paint("31", "✘") };
            self.say(&format!("   {mark} {row:<4} {title:<62} {held} of {}", held + failed));
        }
        if self.interrupted() {
            self.say("\ninterrupted: the lab is taken down");
        }
    }

    pub(crate) fn say(&self, text: &str) {
        // Whoever closed the output still wants the lab to be taken down.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn excerpt(&self, output: &Output) {
        let text = if output.status == Some(0) { &output.stdout } else { &output.stderr };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        self.show(lines.iter().take(EXCERPT).copied());
        if lines.len() > EXCERPT {
            self.show([format!("... {} more lines", lines.len() - EXCERPT).as_str()]);
        }
    }

    fn typed(&self, place: &Netns, argv: &[&str]) {
        let command = self.plain(&argv.join(" "));
        self.say(&format!("  {:>8}$ {}", self.plain(place.name()), self.bold(&command)));
    }

    /// Text without the prefix that keeps the names of this lab apart from those of others.
    fn plain(&self, text: &str) -> String {
        text.replace(&self.lab.name(""), "")
    }

    /// The same for a line of a table: what is taken from a cell is put behind it, so that columns stay aligned.
    fn plain_columns(&self, line: &str) -> String {
        let prefix = self.lab.name("");
        let mut cells = line.split(&prefix);
        let mut plain = cells.next().unwrap_or_default().to_owned();
        for cell in cells {
            let end = cell.find("  ").unwrap_or(cell.len());
            plain += &cell[..end];
            if end < cell.len() {
                plain += &" ".repeat(prefix.len());
            }
            plain += &cell[end..];
        }
        plain
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What is typed, and what is run for it: vnet under test, and this program for its own peers.
fn resolve(argv: &[&str]) -> Vec<String> {
    let path = |path: std::path::PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
    let own = || path(std::env::current_exe().expect("this program has a path"));
    let mut words: Vec<String> = Vec::new();
    for (n, &word) in argv.iter().enumerate() {
        let is_program = n == 0 || argv[n - 1] == "--";
        match word {
            "vnet" if is_program => words.push(path(vnet_tests::lab::vnet_binary())),
            "peer" if is_program => words.extend([own(), "peer".to_owned()]),
            "ping" if is_program && !is_installed("ping") => {
                words.extend([own(), "peer".to_owned(), "ping".to_owned(), argv[argv.len() - 1].to_owned()]);
                break;
            }
            word => words.push(word.to_owned()),
        }
    }
    words
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a failure without words").to_owned()
}
