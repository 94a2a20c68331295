use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Where lines go.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn logged(format: LogFormat, log: impl FnOnce()) -> String {
    let sink = Sink::default();
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(format, sink.clone()));
    tracing::subscriber::with_default(subscriber, log);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn in_a_request() {
    let span =
        tracing::error_span!("request", request_id = "r1", trace_id = tracing::field::Empty, otel.kind = "server");
    span.record("trace_id", "0af7");
    span.in_scope(|| {
        tracing::info_span!("inner", volume = %"v1")
            .in_scope(|| tracing::warn!(used = 3, "pool is \"full\"\nERROR forged"));
    });
}

#[test]
fn json_lines_carry_the_fields_of_every_span() {
    let text = logged(LogFormat::Json, in_a_request);
    assert_eq!(text.lines().count(), 1);
    let line: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("request_id", "r1"),
        ("trace_id", "0af7"),
        ("volume", "v1"),
        ("level", "WARN"),
        ("target", "cloud_service_kit::telemetry::tests"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!((&line["used"], &line["otel.kind"]), (&Value::from(3), &Value::Null));
    assert!(line["message"].as_str().unwrap().contains('\n'));
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn text_lines_are_one_line_each_whatever_they_say() {
    let text = logged(LogFormat::Text, in_a_request);
    let (_, rest) = text.split_once(' ').unwrap();
    let expected = " WARN cloud_service_kit::telemetry::tests: pool is \"full\"\\nERROR forged used=3 volume=v1 request_id=r1 trace_id=0af7\n";
    assert_eq!(rest, expected);
}

#[test]
fn lines_outside_of_requests_have_no_ids() {
    let text = logged(LogFormat::Json, || tracing::info!("up"));
    assert!(text.contains("\"message\":\"up\"") && !text.contains("request_id"), "{text}");
}

#[tokio::test]
async fn a_bad_level_or_endpoint_is_refused_by_name() {
    let bad = TelemetryConfig { log_level: "cloud=lots".into(), ..TelemetryConfig::default() };
    let error = init("test", &bad).unwrap_err().to_string();
    assert!(error.starts_with("`cloud=lots` is not a log level"), "{error}");
    let bad = TelemetryConfig { otlp_endpoint: Some("not a url".into()), ..TelemetryConfig::default() };
    let error = init("test", &bad).unwrap_err().to_string();
    assert_eq!(error, "cannot send traces to `not a url`");
}
