//! The terminal: taken over, and given back however it ends.

use std::io;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use tokio::sync::mpsc::{Receiver, Sender};

use super::app::{App, Key, Outcome};
use super::draw::draw;
use super::snapshot::Snapshot;

/// Something that changes what is shown.
#[derive(Debug)]
pub enum Event {
    /// A key.
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// Something has been counted, or why it could not be.
    Counted(Result<Snapshot, String>),
    /// It is to end.
    End,
}

/// Shows what comes, until it is to end. The terminal is as it was then, also after a panic.
///
/// # Errors
/// When the terminal cannot be used.
pub async fn run(mut app: App, sender: Sender<Event>, mut events: Receiver<Event>) -> io::Result<()> {
    // From here on a panic gives the terminal back before it says anything.
    let mut terminal = ratatui::try_init()?;
    std::thread::spawn(move || read_keys(&sender));
    let shown = show(&mut terminal, &mut app, &mut events).await;
    ratatui::try_restore()?;
    shown
}

async fn show(terminal: &mut DefaultTerminal, app: &mut App, events: &mut Receiver<Event>) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw(frame, app))?;
        let Some(event) = events.recv().await else { return Ok(()) };
        if take(app, event) == Outcome::Ends {
            return Ok(());
        }
        // What has come meanwhile is drawn at once.
        while let Ok(event) = events.try_recv() {
            if take(app, event) == Outcome::Ends {
                return Ok(());
            }
        }
    }
}

fn take(app: &mut App, event: Event) -> Outcome {
    match event {
        Event::Key(key) => return app.key(key),
        Event::Counted(Ok(snapshot)) => app.update(snapshot),
        Event::Counted(Err(trouble)) => app.trouble(trouble),
        Event::Resized => {}
        Event::End => return Outcome::Ends,
    }
    Outcome::Goes
}

/// Hands over keys until nobody wants them, or the terminal is gone.
fn read_keys(sender: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(TerminalEvent::Key(key)) => match meaning(key) {
                Some(key) => Event::Key(key),
                None => continue,
            },
            Ok(TerminalEvent::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            Err(_) => Event::End,
        };
        let ends = matches!(event, Event::End);
        if sender.blocking_send(event).is_err() || ends {
            return;
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c' | 'd') if control => Key::Interrupt,
        KeyCode::Char(letter) if !control => Key::Char(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab | KeyCode::Right => Key::NextTab,
        KeyCode::BackTab | KeyCode::Left => Key::PreviousTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
