//! Tables: aligned, without lines, the same columns in every release.

use comfy_table::{Attribute, Cell, Color, Table, presets};

use super::human::NOTHING;
use crate::resources::{Resource, Tone, View};

/// A header and one row for each.
pub fn rows<R: Resource>(items: &[R], view: View, colours: bool) -> String {
    let mut table = empty(colours);
    table.set_header(R::COLUMNS.iter().map(|column| Cell::new(column).add_attribute(Attribute::Bold)));
    for item in items {
        let tone = item.tone();
        let cells = R::COLUMNS.iter().zip(item.row(view)).map(|(column, text)| cell(&text, (*column, tone)));
        table.add_row(cells);
    }
    finish(&table)
}

/// Everything about each: one line for each thing, an empty line between resources.
pub fn details<R: Resource>(items: &[R], view: View, colours: bool) -> String {
    let block = |item: &R| {
        let mut table = empty(colours);
        for (label, text) in item.details(view) {
            table.add_row([
                Cell::new(format!("{label}:")).add_attribute(Attribute::Bold),
                cell(&text, (label, item.tone())),
            ]);
        }
        finish(&table)
    };
    items.iter().map(block).collect::<Vec<_>>().join("\n")
}

fn empty(colours: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if colours {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn cell(text: &str, (column, tone): (&str, Tone)) -> Cell {
    let text = clean(text);
    let cell = Cell::new(if text.is_empty() { NOTHING } else { &text });
    if !matches!(column, "STATUS" | "STATE" | "OUTCOME" | "Status" | "State") {
        return cell;
    }
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Busy => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Plain => cell,
    }
}

fn finish(table: &Table) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Text that came from elsewhere, on one line and without anything that a terminal would obey.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction_mark(c) { ' ' } else { c }).collect()
}

/// Marks that make a terminal show the characters in another order.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}
