//! Log lines. Each carries the fields of the spans it was logged in, so that `request_id` and `trace_id` are in every line of a
//! request, whichever module wrote it.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::LogFormat;

/// Writes one line per event.
#[derive(Debug)]
pub struct LogLayer<W> {
    format: LogFormat,
    writer: W,
}

impl<W> LogLayer<W> {
    /// Logs in `format` to what `writer` makes.
    pub fn new(format: LogFormat, writer: W) -> Self {
        Self { format, writer }
    }
}

/// The fields of a span, kept with it. OpenTelemetry's own (`otel.…`) are not for the log.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name.starts_with("otel.") {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::from(value));
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut of_spans: Vec<(&'static str, Value)> = Vec::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Fields(more)) = span.extensions().get::<Fields>() {
                // The inner span's value hides that of an outer one.
                let new = more.iter().filter(|(name, _)| of_spans.iter().all(|(known, _)| known != name));
                let new: Vec<_> = new.cloned().collect();
                of_spans.extend(new);
            }
        }
        let line = match self.format {
            LogFormat::Json => json(event, fields, of_spans),
            LogFormat::Text => text(event, &fields, &of_spans),
        };
        // Nowhere is left to complain about a log that cannot be written.
        let _unwritable = self.writer.make_writer_for(event.metadata()).write_all(line.as_bytes());
    }
}

fn timestamp() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _infallible = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

fn json(event: &Event<'_>, fields: Fields, of_spans: Vec<(&'static str, Value)>) -> String {
    let mut line = Map::new();
    for (name, value) in of_spans.into_iter().chain(fields.0) {
        line.insert(name.to_owned(), value);
    }
    line.insert("timestamp".to_owned(), timestamp().into());
    line.insert("level".to_owned(), event.metadata().level().as_str().into());
    line.insert("target".to_owned(), event.metadata().target().into());
    let mut line = Value::Object(line).to_string();
    line.push('\n');
    line
}

fn text(event: &Event<'_>, fields: &Fields, of_spans: &[(&'static str, Value)]) -> String {
    let metadata = event.metadata();
    let mut line = format!("{} {:>5} {}:", timestamp(), metadata.level().as_str(), metadata.target());
    let mut rest = String::new();
    for (name, value) in fields.0.iter().chain(of_spans) {
        // Line breaks and control characters are escaped: a client's text must not forge lines.
        let _infallible = match value {
            Value::String(text) if *name == "message" => write!(line, " {}", escaped(text)),
            Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                write!(rest, " {name}={text:?}")
            }
            Value::String(text) => write!(rest, " {name}={}", escaped(text)),
            other => write!(rest, " {name}={other}"),
        };
    }
    line.push_str(&rest);
    line.push('\n');
    line
}

fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
