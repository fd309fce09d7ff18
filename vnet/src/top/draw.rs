//! A screen of it.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table};

use super::app::{App, Footer};
use super::snapshot::{Kind, Tab, cells};

/// Columns between columns.
const SPACING: u16 = 2;

const HELP: [(&str, &str); 10] = [
    ("1-4, Tab, arrows", "another table"),
    ("up, down, j, k", "another row"),
    ("PgUp, PgDn", "a page"),
    ("Home, End, g, G", "the first or the last row"),
    ("s, S", "sort by the next column, or the one before"),
    ("r", "sort the other way round"),
    ("/", "only rows that hold a text; Enter keeps it, Esc clears it"),
    ("p, space", "pause, and go on"),
    ("h, ?", "this help"),
    ("q, Ctrl-C", "end"),
];

/// Draws what is shown on a screen of any size.
pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    draw_head(frame, head, app);
    draw_table(frame, body, app);
    draw_foot(frame, foot, app);
    if app.has_help() {
        draw_help(frame, body);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let [summary, tabs] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(
        Line::from(vec!["vnet top".bold(), Span::raw("  "), Span::raw(app.summary())]),
        summary,
    );
    let mut spans = Vec::new();
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let text = format!(" {} {} ", number + 1, tab.name());
        let style = if tab == app.tab() { Style::new().bold().reversed() } else { Style::new().dim() };
        spans.extend([Span::styled(text, style), Span::raw(" ")]);
    }
    frame.render_widget(Line::from(spans), tabs);
    frame.render_widget(Line::from(app.place()).alignment(Alignment::Right).dim(), tabs);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, app: &mut App) {
    let tab = app.tab();
    let (sorted, reverse) = app.sort();
    let room = usize::from(area.height.saturating_sub(1));
    let (rows, selected) = app.rows(room);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| cells(tab, row)).collect();
    let shown = shown(tab, area.width.into());
    let widths = widths(tab, &shown, &rows, area.width.into());
    let header = shown.iter().map(|number| {
        let column = tab.columns()[*number];
        let arrow = match (*number == sorted, reverse, column.kind) {
            (false, ..) => "",
            // Words begin with the first, numbers with the greatest.
            (true, false, Kind::Word) | (true, true, _) => "▲",
            (true, false, _) => "▼",
        };
        let style = if *number == sorted { Style::new().bold().underlined() } else { Style::new().bold() };
        Cell::from(aligned(format!("{}{arrow}", column.title), column.kind)).style(style)
    });
    let header = Row::new(header.collect::<Vec<_>>());
    let drawn = rows.iter().enumerate().map(|(number, cells)| {
        let cells = shown.iter().zip(&widths).map(|(column, width)| {
            let (text, kind) = (&cells[*column], tab.columns()[*column].kind);
            let cell = Cell::from(aligned(cut(text, *width), kind));
            // What does not move is not what one looks for.
            if is_nothing(text) && kind != Kind::Word { cell.dim() } else { cell }
        });
        let style =
            if number == selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Row::new(cells.collect::<Vec<_>>()).style(style)
    });
    let constraints = widths.iter().map(|width| Constraint::Length(*width as u16));
    let table = Table::new(drawn.collect::<Vec<_>>(), constraints.collect::<Vec<_>>());
    frame.render_widget(table.header(header).column_spacing(SPACING), area);
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "-" | "0" | "0 bit/s" | "0 B")
}

fn aligned<'a>(text: String, kind: Kind) -> Line<'a> {
    let alignment = if kind == Kind::Word { Alignment::Left } else { Alignment::Right };
    Line::from(text).alignment(alignment)
}

/// The columns for which there is room; which these are does not depend on what is in them, so that nothing jumps.
fn shown(tab: Tab, room: usize) -> Vec<usize> {
    let columns = tab.columns();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed =
        |shown: &[usize]| shown.iter().map(|number| columns[*number].least).sum::<usize>() + spaces(shown);
    while needed(&shown) > room {
        let spared = shown.iter().copied().filter(|number| columns[*number].spared > 0);
        let Some(first) = spared.max_by_key(|number| columns[*number].spared) else { break };
        shown.retain(|number| *number != first);
    }
    shown
}

fn spaces(shown: &[usize]) -> usize {
    shown.len().saturating_sub(1) * usize::from(SPACING)
}

/// How wide these columns are: those of numbers always the same; those of words as wide as what is shown in them, the
/// widest of them less as long as there is not enough room.
fn widths(tab: Tab, shown: &[usize], rows: &[Vec<String>], room: usize) -> Vec<usize> {
    let column = |number: usize| tab.columns()[number];
    let mut widths: Vec<usize> = shown
        .iter()
        .map(|number| match column(*number).kind {
            Kind::Word => {
                let cells = rows.iter().map(|row| row[*number].chars().count());
                // The header has an arrow when it is sorted by.
                cells.max().unwrap_or(0).max(column(*number).title.len() + 1)
            }
            kind => kind.width(),
        })
        .collect();
    while widths.iter().sum::<usize>() + spaces(shown) > room {
        let words = widths.iter_mut().zip(shown).filter(|(width, number)| **width > column(**number).least);
        let Some((widest, _)) = words.max_by_key(|(width, _)| **width) else { break };
        *widest -= 1;
    }
    widths
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let line = match app.footer() {
        Footer::Typing(filter) => Line::from(vec!["filter: ".bold(), Span::raw(filter), Span::raw("▏")]),
        Footer::Trouble(trouble) => Line::from(trouble).fg(Color::Red),
        Footer::Keys { paused, filter } => {
            let mut spans = Vec::new();
            if paused {
                spans.extend([" paused ".reversed(), Span::raw(" ")]);
            }
            if !filter.is_empty() {
                spans.push(format!("filter: {filter}  ").bold());
            }
            spans.push("q end  1-4 tables  s sort  r reverse  / filter  p pause  h help".dim());
            Line::from(spans)
        }
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(keys, what)| Line::from(vec![format!("{keys:<18}").bold(), Span::raw(*what)]))
        .collect();
    let (width, height) = (80.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let area =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), area);
}
