//! The one place that prints to stdout: tables for people, the REST API's JSON and the same as YAML for programs.

pub mod human;
mod lines;
mod table;

use std::{
    env,
    io::{self, IsTerminal, Write},
    time::SystemTime,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    args::Format,
    error::Error,
    resources::{Resource, View, follow::Follow},
};
pub use table::clean;

/// How to print, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    view: View,
    colours: bool,
}

impl Output {
    /// In this format, to this process's stdout. Colours only on a terminal, and not under NO_COLOR.
    pub fn new(format: Format) -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colours = wanted && able && io::stdout().is_terminal();
        Self { format, view: View { now: SystemTime::now() }, colours }
    }

    /// A list, with the token that continues it.
    pub fn list<R: Resource>(&self, items: &[R], next_page_token: &str) -> Result<(), Error> {
        self.write(&self.list_text(items, next_page_token)?)
    }

    /// Changes as they come.
    pub fn lines<R: Follow>(&self) -> lines::Lines<R> {
        lines::Lines::new(*self)
    }

    /// The resources after a change: rows of a table, or a document each.
    pub fn changed<R: Resource>(&self, items: &[R]) -> Result<(), Error> {
        match self.format {
            Format::Table if items.is_empty() => Ok(()),
            Format::Table => self.write(&table::rows(items, self.view, self.colours)),
            _ => self.write(&self.documents(items)?),
        }
    }

    /// Everything about each resource.
    pub fn details<R: Resource>(&self, items: &[R]) -> Result<(), Error> {
        match self.format {
            Format::Table => self.write(&table::details(items, self.view, self.colours)),
            _ => self.write(&self.documents(items)?),
        }
    }

    /// Something that is not a resource: `text` for people, `document` for programs.
    pub fn plain<D: Serialize>(&self, text: &str, document: &D) -> Result<(), Error> {
        match self.format {
            Format::Table => self.write(&format!("{text}\n")),
            Format::Json => self.write(&json(document)?),
            Format::Yaml => self.write(&yaml(document)?),
        }
    }

    fn list_text<R: Resource>(&self, items: &[R], next_page_token: &str) -> Result<String, Error> {
        let list = List { items, next_page_token };
        match self.format {
            Format::Table => Ok(table::rows(items, self.view, self.colours)),
            Format::Json => json(&list),
            Format::Yaml => yaml(&list),
        }
    }

    fn documents<R: Resource>(&self, items: &[R]) -> Result<String, Error> {
        let each: Result<Vec<String>, Error> = match self.format {
            Format::Yaml => items.iter().map(yaml).collect(),
            _ => items.iter().map(json).collect(),
        };
        Ok(each?.join(if self.format == Format::Yaml { "---\n" } else { "" }))
    }

    fn write(&self, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::output)
    }
}

/// A list as the REST API answers it.
struct List<'a, R> {
    items: &'a [R],
    next_page_token: &'a str,
}

impl<R: Resource> Serialize for List<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(R::PLURAL, self.items)?;
        map.serialize_entry("next_page_token", self.next_page_token)?;
        map.end()
    }
}

fn json<D: Serialize>(document: &D) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(document).map_err(|error| Error::output(error.into()))?;
    text.push('\n');
    Ok(text)
}

fn yaml<D: Serialize>(document: &D) -> Result<String, Error> {
    serde_yaml_ng::to_string(document).map_err(|error| Error::output(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
