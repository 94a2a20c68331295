//! The table that the benchmark ends with.

use std::fmt;

use comfy_table::{CellAlignment, presets::UTF8_FULL_CONDENSED};

/// Measured values beside their budgets.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<[String; 4]>,
    missed: bool,
}

impl Table {
    /// A value that has a budget.
    pub fn judged(&mut self, what: &str, value: String, budget: &str, met: bool) {
        self.missed |= !met;
        self.rows.push([what.into(), value, budget.into(), if met { "met" } else { "MISSED" }.into()]);
    }

    /// A value for information.
    pub fn note(&mut self, what: &str, value: String) {
        self.rows.push([what.into(), value, String::new(), String::new()]);
    }

    /// Whether every budget is met.
    pub fn all_met(&self) -> bool {
        !self.missed
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header(["measured", "value", "budget", ""]);
        for row in &self.rows {
            table.add_row(row);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.fmt(f)
    }
}

/// The middle value; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
