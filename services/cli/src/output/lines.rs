//! Changes as they come: a line of a table for each, or an object of JSON on a line of its own.

use std::marker::PhantomData;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Output, clean, human::NOTHING, yaml};
use crate::{
    args::Format,
    error::Error,
    resources::follow::{Follow, Told},
};

/// The column of what happened.
const CHANGE: &str = "CHANGE";

/// Prints changes of one kind of resource.
pub struct Lines<R> {
    out: Output,
    /// Of the columns so far; none: nothing was printed yet.
    widths: Option<Vec<usize>>,
    kind: PhantomData<R>,
}

impl<R: Follow> Lines<R> {
    pub(super) fn new(out: Output) -> Self {
        Self { out, widths: None, kind: PhantomData }
    }

    /// Prints what came together.
    pub fn print(&mut self, told: &[Told<R>]) -> Result<(), Error> {
        let text = match self.out.format {
            Format::Table => self.table(told),
            Format::Json => {
                let line = |told| serde_json::to_string(&Message(told)).map(|json| json + "\n");
                told.iter().map(line).collect::<Result<_, _>>().map_err(|error| Error::output(error.into()))?
            }
            Format::Yaml => {
                let each: Result<Vec<_>, _> = told.iter().map(|told| yaml(&Message(told))).collect();
                each?.into_iter().map(|text| format!("---\n{text}")).collect()
            }
        };
        self.out.write(&text)
    }

    fn table(&mut self, told: &[Told<R>]) -> String {
        let mut rows = Vec::new();
        if self.widths.is_none() {
            rows.push(std::iter::once(CHANGE).chain(R::COLUMNS.iter().copied()).map(str::to_owned).collect());
        }
        let view = super::View { now: std::time::SystemTime::now() };
        for told in told {
            let Some(item) = &told.item else { continue };
            let cells = item.row(view).into_iter().map(|cell| match clean(&cell) {
                cell if cell.is_empty() => NOTHING.to_owned(),
                cell => cell,
            });
            rows.push(std::iter::once(told.change.to_owned()).chain(cells).collect::<Vec<_>>());
        }
        let widths = self.widths.get_or_insert_with(|| vec!["CREATED".len(); R::COLUMNS.len() + 1]);
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(widths.iter()).map(|(cell, width)| format!("{cell:<width$}  "));
            cells.collect::<String>().trim_end().to_owned() + "\n"
        };
        rows.iter().map(line).collect()
    }
}

/// A message as the REST API sends it.
struct Message<'a, R>(&'a Told<R>);

impl<R: Follow> Serialize for Message<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("change", self.0.change)?;
        map.serialize_entry(R::FIELD, &self.0.item)?;
        map.serialize_entry("resume_token", &self.0.resume_token)?;
        map.end()
    }
}
