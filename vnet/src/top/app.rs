//! What is shown of a snapshot, and how keys change that.

use super::snapshot::{Row, Snapshot, Tab, Table};

/// A key, as far as it means anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Ctrl-C.
    Interrupt,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// To the next tab.
    NextTab,
    /// To the tab before.
    PreviousTab,
    /// A row up.
    Up,
    /// A row down.
    Down,
    /// As many rows up as are shown.
    PageUp,
    /// As many rows down.
    PageDown,
    /// To the first row.
    Home,
    /// To the last row.
    End,
}

/// What a key has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Goes,
    /// It is to end.
    Ends,
}

/// How a table is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    /// The column that rows are sorted by.
    column: usize,
    reverse: bool,
    /// Which of the rows is marked, in their order.
    selected: usize,
    /// The first that is shown.
    first: usize,
}

/// What is shown, and of what.
#[derive(Clone, Debug)]
pub struct App {
    tab: Tab,
    views: [View; 4],
    snapshot: Option<Snapshot>,
    /// The rows of the table that is shown, in their order.
    order: Vec<usize>,
    filter: String,
    typing: bool,
    paused: bool,
    help: bool,
    /// What went wrong with the last attempt to count.
    trouble: Option<String>,
    /// How many rows were shown last.
    page: usize,
}

impl App {
    /// Begins with a tab.
    #[must_use]
    pub fn new(tab: Tab) -> Self {
        let view = |tab: Tab| View { column: tab.first_sort(), reverse: false, selected: 0, first: 0 };
        Self {
            tab,
            views: Tab::ALL.map(view),
            snapshot: None,
            order: Vec::new(),
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            trouble: None,
            page: 1,
        }
    }

    /// Takes what has been counted since; nothing of it while it is paused.
    pub fn update(&mut self, snapshot: Snapshot) {
        self.trouble = None;
        if !self.paused || self.snapshot.is_none() {
            self.snapshot = Some(snapshot);
            self.put_in_order();
        }
    }

    /// Takes why nothing could be counted.
    pub fn trouble(&mut self, what: String) {
        self.trouble = Some(what);
    }

    /// Does what a key stands for.
    pub fn key(&mut self, key: Key) -> Outcome {
        if key == Key::Interrupt {
            return Outcome::Ends;
        }
        if self.typing {
            self.type_in(key);
            return Outcome::Goes;
        }
        match key {
            Key::Char('q') => return Outcome::Ends,
            Key::Char('h' | '?') => self.help = !self.help,
            Key::Escape if self.help => self.help = false,
            Key::Escape => self.set_filter(String::new()),
            Key::Char('p' | ' ') => self.paused = !self.paused,
            Key::Char('/') => self.typing = true,
            Key::Char('s') => self.sort_by_next(1),
            Key::Char('S') => self.sort_by_next(self.tab.columns().len() - 1),
            Key::Char('r') => {
                self.view_mut().reverse ^= true;
                self.put_in_order();
            }
            Key::Char(digit @ '1'..='4') => self.show(Tab::ALL[digit as usize - '1' as usize]),
            Key::NextTab => self.show(Tab::ALL[(self.tab as usize + 1) % Tab::ALL.len()]),
            Key::PreviousTab => {
                self.show(Tab::ALL[(self.tab as usize + Tab::ALL.len() - 1) % Tab::ALL.len()]);
            }
            Key::Up | Key::Char('k') => self.select(self.view().selected.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(self.view().selected.saturating_add(1)),
            Key::PageUp => self.select(self.view().selected.saturating_sub(self.page)),
            Key::PageDown => self.select(self.view().selected.saturating_add(self.page)),
            Key::Home | Key::Char('g') => self.select(0),
            Key::End | Key::Char('G') => self.select(usize::MAX),
            _ => {}
        }
        Outcome::Goes
    }

    fn type_in(&mut self, key: Key) {
        match key {
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.set_filter(String::new());
            }
            Key::Backspace => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.set_filter(filter);
            }
            Key::Char(letter) => self.set_filter(format!("{}{letter}", self.filter)),
            _ => {}
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.put_in_order();
    }

    fn sort_by_next(&mut self, step: usize) {
        let columns = self.tab.columns().len();
        let view = self.view_mut();
        view.column = (view.column + step) % columns;
        view.reverse = false;
        self.put_in_order();
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.put_in_order();
    }

    fn select(&mut self, row: usize) {
        let last = self.order.len().saturating_sub(1);
        self.view_mut().selected = row.min(last);
    }

    fn put_in_order(&mut self) {
        let View { column, reverse, selected, .. } = *self.view();
        let table = self.snapshot.as_ref().map(|snapshot| snapshot.table(self.tab));
        self.order = table.map(|table| table.order(column, reverse, &self.filter)).unwrap_or_default();
        self.select(selected);
    }

    fn view(&self) -> &View {
        &self.views[self.tab as usize]
    }

    fn view_mut(&mut self) -> &mut View {
        &mut self.views[self.tab as usize]
    }

    /// The tab that is shown.
    #[must_use]
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// The column that its rows are sorted by, and whether the other way round.
    pub(super) fn sort(&self) -> (usize, bool) {
        (self.view().column, self.view().reverse)
    }

    /// As many of the rows as there is room for, the marked one among them, whose place is the number.
    pub(super) fn rows(&mut self, room: usize) -> (Vec<&Row>, usize) {
        self.page = room.max(1);
        let rows = self.order.len();
        let page = self.page;
        let view = self.view_mut();
        let lowest = view.selected.saturating_sub(page - 1);
        view.first = view.first.clamp(lowest, view.selected).min(rows.saturating_sub(page));
        let View { first, selected, .. } = *view;
        let Some(snapshot) = &self.snapshot else { return (Vec::new(), 0) };
        let table: &Table = snapshot.table(self.tab);
        let shown = self.order.iter().skip(first).take(room).map(|row| &table.rows[*row]);
        (shown.collect(), selected.saturating_sub(first))
    }

    /// Which rows these are, of how many.
    pub(super) fn place(&self) -> String {
        let all = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.table(self.tab).rows.len());
        let (rows, selected) = (self.order.len(), self.view().selected);
        let of_all = if rows == all { String::new() } else { format!(" of {all}") };
        let sorted = self.tab.columns()[self.view().column].title;
        if rows == 0 {
            format!("none{of_all}")
        } else {
            format!("by {sorted}  {} / {rows}{of_all}", selected + 1)
        }
    }

    /// What there is in all.
    pub(super) fn summary(&self) -> String {
        self.snapshot.as_ref().map_or_else(|| "counting…".to_owned(), Snapshot::summary)
    }

    /// What the last line says: what is typed, what went wrong, or which keys there are.
    pub(super) fn footer(&self) -> Footer<'_> {
        if self.typing {
            return Footer::Typing(&self.filter);
        }
        match &self.trouble {
            Some(trouble) => Footer::Trouble(trouble),
            None => Footer::Keys { paused: self.paused, filter: &self.filter },
        }
    }

    /// Whether help covers the rows.
    pub(super) fn has_help(&self) -> bool {
        self.help
    }
}

/// What the last line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footer<'a> {
    /// A filter that is being typed.
    Typing(&'a str),
    /// What went wrong.
    Trouble(&'a str),
    /// Which keys there are.
    Keys {
        /// Whether it is paused.
        paused: bool,
        /// The filter, if any.
        filter: &'a str,
    },
}
