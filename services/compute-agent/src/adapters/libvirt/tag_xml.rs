//! The tag of a domain as an element of its `<metadata>`.

use std::time::{Duration, SystemTime};

use quick_xml::{
    Reader, Writer,
    events::{BytesText, Event},
};

use crate::core::{Ended, PendingReboot, SpecRecord, Tag};

/// The element's namespace: what says that a domain belongs to a cloud.
pub const NAMESPACE: &str = "urn:thecloud:v1";
/// The prefix that libvirt shows it with.
pub const PREFIX: &str = "cloud";

/// A tag that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("its tag cannot be read: {0}")]
pub struct TagError(String);

fn bad(problem: impl std::fmt::Display) -> TagError {
    TagError(problem.to_string())
}

/// Writes the element. `prefix` is the namespace's prefix with its colon: within a whole domain the element names itself, for
/// `virDomainSetMetadata` libvirt adds it.
pub fn write(writer: &mut Writer<Vec<u8>>, tag: &Tag, prefix: &str) -> std::io::Result<()> {
    let spec = serde_json::to_string(&tag.spec).map_err(std::io::Error::other)?;
    let mut element = writer.create_element(format!("{prefix}instance"));
    if !prefix.is_empty() {
        element = element.with_attribute((format!("xmlns:{PREFIX}").as_str(), NAMESPACE));
    }
    element = element
        .with_attribute(("cloud-id", tag.cloud.to_string().as_str()))
        .with_attribute(("instance-id", tag.instance.to_string().as_str()))
        .with_attribute(("incarnation", tag.incarnation.to_string().as_str()))
        .with_attribute(("boot-generation", tag.boot_generation.to_string().as_str()));
    if let Some(reboot) = tag.reboot {
        element = element
            .with_attribute(("reboot-to", reboot.to.to_string().as_str()))
            .with_attribute(("reboot-force-at-ms", millis(reboot.force_at).to_string().as_str()));
    }
    if let Some(at) = tag.started_at {
        element = element.with_attribute(("started-at-ms", millis(at).to_string().as_str()));
    }
    if let Some(ended) = tag.ended {
        element = element.with_attribute(("ended", ended_text(ended)));
    }
    if tag.host_stop {
        element = element.with_attribute(("host-stop", "true"));
    }
    element.write_inner_content(|writer| {
        writer.create_element(format!("{prefix}spec")).write_text_content(BytesText::new(&spec))?;
        Ok(())
    })?;
    Ok(())
}

/// The element alone, as `virDomainSetMetadata` takes it.
pub fn element(tag: &Tag) -> std::io::Result<String> {
    let mut writer = Writer::new(Vec::new());
    write(&mut writer, tag, "")?;
    String::from_utf8(writer.into_inner()).map_err(std::io::Error::other)
}

/// Reads the element as `virDomainGetMetadata` gives it.
///
/// # Errors
/// It is not one of ours, or lacks a part.
pub fn parse(xml: &str) -> Result<Tag, TagError> {
    let mut reader = Reader::from_str(xml);
    let mut attributes = std::collections::HashMap::new();
    let (mut in_spec, mut spec) = (false, String::new());
    loop {
        match reader.read_event().map_err(bad)? {
            Event::Start(start) if start.local_name().as_ref() == b"instance" => {
                for attribute in start.attributes() {
                    let attribute = attribute.map_err(bad)?;
                    let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
                    attributes.insert(key, attribute.unescape_value().map_err(bad)?.into_owned());
                }
            }
            Event::Start(start) => in_spec = start.local_name().as_ref() == b"spec",
            Event::End(_) => in_spec = false,
            Event::Text(text) if in_spec => spec.push_str(&text.decode().map_err(bad)?),
            Event::GeneralRef(entity) if in_spec => spec.push_str(&resolve(&entity)?),
            Event::Eof => break,
            _ => {}
        }
    }
    let record: SpecRecord = serde_json::from_str(&spec).map_err(bad)?;
    let get = |key: &str| attributes.get(key).ok_or_else(|| bad(format_args!("`{key}` is missing")));
    let reboot = match (attributes.get("reboot-to"), attributes.get("reboot-force-at-ms")) {
        (Some(to), Some(at)) => Some(PendingReboot { to: to.parse().map_err(bad)?, force_at: time(at)? }),
        _ => None,
    };
    Ok(Tag {
        cloud: get("cloud-id")?.parse().map_err(bad)?,
        instance: get("instance-id")?.parse().map_err(bad)?,
        incarnation: get("incarnation")?.parse().map_err(bad)?,
        boot_generation: get("boot-generation")?.parse().map_err(bad)?,
        reboot,
        started_at: attributes.get("started-at-ms").map(|at| time(at)).transpose()?,
        ended: attributes.get("ended").map(|text| ended_from(text)).transpose()?,
        host_stop: attributes.get("host-stop").is_some_and(|value| value == "true"),
        spec: record,
    })
}

/// `&quot;` and the like within text.
fn resolve(entity: &quick_xml::events::BytesRef<'_>) -> Result<String, TagError> {
    if let Some(character) = entity.resolve_char_ref().map_err(bad)? {
        return Ok(character.to_string());
    }
    let name = entity.decode().map_err(bad)?;
    let text = quick_xml::escape::resolve_predefined_entity(&name);
    text.map(str::to_owned).ok_or_else(|| bad(format_args!("unknown entity `{name}`")))
}

fn millis(at: SystemTime) -> u128 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}

fn time(text: &str) -> Result<SystemTime, TagError> {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(text.parse().map_err(bad)?));
    at.ok_or_else(|| bad(format_args!("`{text}` is not a time")))
}

const fn ended_text(ended: Ended) -> &'static str {
    match ended {
        Ended::GuestShutdown => "guest-shutdown",
        Ended::Destroyed => "destroyed",
        Ended::Crashed => "crashed",
    }
}

fn ended_from(text: &str) -> Result<Ended, TagError> {
    match text {
        "guest-shutdown" => Ok(Ended::GuestShutdown),
        "destroyed" => Ok(Ended::Destroyed),
        "crashed" => Ok(Ended::Crashed),
        other => Err(bad(format_args!("`{other}` is not an end"))),
    }
}
