//! Finding domains and reading what they are. Everything here blocks.

use std::collections::BTreeMap;

use cloud_domain::InstanceId;
use virt::{
    connect::Connect,
    domain::{Domain, DomainPausedReason, DomainShutoffReason, DomainState, DomainStateReason},
    error::{Error, ErrorNumber},
    sys,
};

use super::{disks, domain_xml::domain_name, tag_xml};
use crate::core::{Ended, Found, Guest, Power, Reason};

const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();

/// The domain of an instance that [`find`] found to be tagged, to act on.
pub fn domain(connect: &Connect, id: InstanceId) -> Result<Domain, Error> {
    connect.lookup_domain_by_uuid_string(&id.to_string())
}

/// See [`crate::core::Hypervisor::find`].
pub fn find(connect: &Connect, id: InstanceId) -> Result<Option<Found>, Error> {
    let name = domain_name(id);
    if let Some(domain) = there(domain(connect, id))? {
        return there(found(&domain, id, &name));
    }
    match there(connect.lookup_domain_by_name(&name))? {
        None => Ok(None),
        Some(domain) => {
            let uuid = domain.uuid_string()?;
            Ok(Some(Found::Foreign(format!("a domain called `{name}` has the UUID {uuid}"))))
        }
    }
}

fn found(domain: &Domain, id: InstanceId, name: &str) -> Result<Found, Error> {
    let called = domain.name()?;
    if called != name {
        return Ok(Found::Foreign(format!("a domain with its UUID is called `{called}`")));
    }
    match tagged(domain)? {
        Tagged::No => Ok(Found::Foreign(format!("the domain `{called}` has no tag of a cloud"))),
        Tagged::Unreadable(problem) => Ok(Found::Foreign(format!("the domain `{called}` is tagged, but {problem}"))),
        Tagged::Yes(guest) if guest.tag.instance != id => {
            Ok(Found::Foreign(format!("the domain `{called}` is tagged as instance {}", guest.tag.instance)))
        }
        Tagged::Yes(guest) => Ok(Found::Tagged(*guest)),
    }
}

/// Every domain with a tag that can be read and fits its UUID and its name.
pub fn list(connect: &Connect) -> Result<Vec<Guest>, Error> {
    let mut guests = Vec::new();
    for domain in connect.list_all_domains(0)? {
        match there(tagged(&domain))? {
            Some(Tagged::Yes(guest)) if is_named_for(&domain, guest.tag.instance)? => guests.push(*guest),
            Some(Tagged::Unreadable(problem)) => {
                let name = domain.name().unwrap_or_default();
                tracing::warn!(domain = name, %problem, "a domain is left out of the inventory");
            }
            Some(Tagged::Yes(_) | Tagged::No) | None => {}
        }
    }
    Ok(guests)
}

fn is_named_for(domain: &Domain, id: InstanceId) -> Result<bool, Error> {
    Ok(domain.name()? == domain_name(id) && domain.uuid_string()? == id.to_string())
}

/// Writes a tag on the domain, on the running one too.
pub fn write_tag(domain: &Domain, element: &str) -> Result<(), Error> {
    let mut flags = sys::VIR_DOMAIN_AFFECT_CONFIG;
    if domain.is_active()? {
        flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
    }
    domain.set_metadata(ELEMENT, Some(element), Some(tag_xml::PREFIX), Some(tag_xml::NAMESPACE), flags)
}

enum Tagged {
    No,
    Unreadable(tag_xml::TagError),
    Yes(Box<Guest>),
}

fn tagged(domain: &Domain) -> Result<Tagged, Error> {
    let element = match domain.metadata(ELEMENT, Some(tag_xml::NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Err(error) if error.code().is(ErrorNumber::NoDomainMetadata) => return Ok(Tagged::No),
        element => element?,
    };
    let tag = match tag_xml::parse(&element) {
        Ok(tag) => tag,
        Err(error) => return Ok(Tagged::Unreadable(error)),
    };
    let (power, hypervisor_reason) = state(domain)?;
    let mut guest = Guest { tag, power, hypervisor_reason, limits: BTreeMap::new() };
    if guest.is_active() {
        guest.limits = disks::limits(&domain.xml_desc(0)?, &guest.tag.spec.volumes());
    }
    Ok(Tagged::Yes(Box::new(guest)))
}

fn state(domain: &Domain) -> Result<(Power, Reason), Error> {
    use virt::enumutil::Enum;
    let (state, reason) = domain.state()?;
    let Enum::Known(state) = state else {
        // `virt` does not look at this call's result; a call that failed leaves the state unset, and says why on this thread.
        return Err(Error::last_error());
    };
    Ok(match state {
        // A guest on its way down, or paused for a moment of libvirt's own, still runs.
        DomainState::Running | DomainState::Blocked | DomainState::Shutdown | DomainState::NoState => {
            (Power::Running, Reason::Unknown)
        }
        DomainState::Paused => match reason {
            Enum::Known(DomainStateReason::Paused(why)) => paused(why.unwrap_or(DomainPausedReason::Unknown)),
            _ => (Power::Paused, Reason::Unknown),
        },
        DomainState::PMSuspended => (Power::Paused, Reason::Unknown),
        DomainState::Crashed => (Power::Crashed, Reason::Ended(Ended::Crashed)),
        DomainState::Shutoff => match reason {
            Enum::Known(DomainStateReason::Shutoff(why)) => {
                (Power::Shutoff, shutoff(why.unwrap_or(DomainShutoffReason::Unknown)))
            }
            _ => (Power::Shutoff, Reason::Unknown),
        },
    })
}

const fn paused(why: DomainPausedReason) -> (Power, Reason) {
    match why {
        DomainPausedReason::IOError => (Power::Paused, Reason::IoError),
        DomainPausedReason::ShuttingDown | DomainPausedReason::StartingUp | DomainPausedReason::Crashed => {
            (Power::Running, Reason::Unknown)
        }
        _ => (Power::Paused, Reason::Unknown),
    }
}

const fn shutoff(why: DomainShutoffReason) -> Reason {
    match why {
        DomainShutoffReason::Shutdown => Reason::Ended(Ended::GuestShutdown),
        DomainShutoffReason::Destroyed => Reason::Ended(Ended::Destroyed),
        DomainShutoffReason::Crashed => Reason::Ended(Ended::Crashed),
        DomainShutoffReason::Failed => Reason::StartFailed,
        DomainShutoffReason::Unknown
        | DomainShutoffReason::Migrated
        | DomainShutoffReason::Saved
        | DomainShutoffReason::FromSnapshot
        | DomainShutoffReason::Daemon => Reason::Unknown,
    }
}

/// `None` for a domain that does not exist.
fn there<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.code().is(ErrorNumber::NoDomain) => Ok(None),
        result => result.map(Some),
    }
}
