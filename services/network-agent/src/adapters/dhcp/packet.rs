//! DHCP messages as Ethernet frames (RFC 2131, RFC 2132).

use std::net::Ipv4Addr;

use cloud_domain::MacAddr;

use crate::core::{
    dhcp::{Ask, LEASE_TIME, Lease, Request, Verdict},
    model::DHCP_MAC_PREFIX,
    pipeline::{dhcp_mac, gateway_mac},
};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const BOOTP: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// The least that a client must accept, and old ones expect (RFC 1542, section 2.1).
const BOOTP_MINIMUM: usize = 300;
const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// A request, and what its answer repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The switch port it came in by.
    pub ofport: u16,
    /// What the answer depends on.
    pub request: Request,
    transaction: [u8; 4],
    broadcast: bool,
}

/// Reads a frame from the switch; none where it is not a request from a guest.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Incoming> {
    let ofport = match frame.get(6..ETHERNET)? {
        [a, b, c, d, high, low, 0x08, 0x00] if [*a, *b, *c, *d] == DHCP_MAC_PREFIX => u16::from_be_bytes([*high, *low]),
        _ => return None,
    };
    let bootp = udp_payload(frame.get(ETHERNET..)?)?;
    // op 1: request; Ethernet addresses of six bytes
    if bootp.get(..3)? != [1, 1, 6] || bootp.get(BOOTP..BOOTP + 4)? != MAGIC {
        return None;
    }
    let options = Options(bootp.get(BOOTP + 4..)?);
    let ask = match options.get(53)? {
        [1] => Ask::Discover,
        [3] => Ask::Request,
        [8] => Ask::Inform,
        _ => Ask::Other,
    };
    let chaddr: [u8; 6] = bootp.get(28..34)?.try_into().ok()?;
    Some(Incoming {
        ofport,
        request: Request {
            ask,
            chaddr: MacAddr::from(chaddr),
            ciaddr: address(bootp.get(12..16)?)?,
            wanted: options.get(50).and_then(address),
            server: options.get(54).and_then(address),
        },
        transaction: bootp.get(4..8)?.try_into().ok()?,
        broadcast: bootp.get(10)? & 0x80 != 0,
    })
}

/// The frame that answers a request; none where the verdict is silence.
#[must_use]
pub fn answer(incoming: &Incoming, lease: &Lease, verdict: Verdict) -> Option<Vec<u8>> {
    let kind = match verdict {
        Verdict::Offer => 2,
        Verdict::Ack | Verdict::Informed => 5,
        Verdict::Nak => 6,
        Verdict::Ignore => return None,
    };
    let (gives_address, ciaddr) = (matches!(verdict, Verdict::Offer | Verdict::Ack), incoming.request.ciaddr);
    let yiaddr = if gives_address { lease.ip } else { Ipv4Addr::UNSPECIFIED };
    let mut bootp = vec![2, 1, 6, 0];
    bootp.extend(incoming.transaction);
    bootp.extend([0, 0, if incoming.broadcast { 0x80 } else { 0 }, 0]);
    let shown = if verdict == Verdict::Nak { Ipv4Addr::UNSPECIFIED } else { ciaddr };
    for ip in [shown, yiaddr, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED] {
        bootp.extend(ip.octets());
    }
    bootp.extend(incoming.request.chaddr.octets());
    bootp.resize(BOOTP, 0);
    bootp.extend(MAGIC);
    write_options(&mut bootp, lease, verdict, kind);
    bootp.resize(bootp.len().max(BOOTP_MINIMUM), 0);
    // RFC 2131, section 4.1
    let to = match verdict {
        Verdict::Nak => Ipv4Addr::BROADCAST,
        _ if !ciaddr.is_unspecified() => ciaddr,
        _ if incoming.broadcast => Ipv4Addr::BROADCAST,
        _ => lease.ip,
    };
    Some(frame(incoming.ofport, lease.gateway, to, &bootp))
}

fn write_options(bootp: &mut Vec<u8>, lease: &Lease, verdict: Verdict, kind: u8) {
    let mut option = |code: u8, value: &[u8]| {
        if let Ok(length) = u8::try_from(value.len()) {
            bootp.extend([code, length]);
            bootp.extend(value);
        }
    };
    option(53, &[kind]);
    option(54, &lease.gateway.octets());
    if matches!(verdict, Verdict::Offer | Verdict::Ack) {
        let seconds = u32::try_from(LEASE_TIME.as_secs()).unwrap_or(u32::MAX);
        option(51, &seconds.to_be_bytes());
        option(58, &(seconds / 2).to_be_bytes());
        option(59, &(seconds / 8 * 7).to_be_bytes());
    }
    if verdict != Verdict::Nak {
        option(1, &lease.mask.octets());
        option(3, &lease.gateway.octets());
        let dns: Vec<u8> = lease.dns.iter().flat_map(Ipv4Addr::octets).collect();
        if !dns.is_empty() {
            option(6, &dns);
        }
        if !lease.hostname.is_empty() {
            option(12, lease.hostname.as_bytes());
        }
        option(26, &lease.mtu.to_be_bytes());
    }
    bootp.push(255);
}

fn frame(ofport: u16, from: Ipv4Addr, to: Ipv4Addr, bootp: &[u8]) -> Vec<u8> {
    // At most 236 + 4 + some hundred bytes of options.
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let mut udp = [SERVER.to_be_bytes(), CLIENT.to_be_bytes(), length(UDP + bootp.len()), [0, 0]].concat();
    udp.extend(bootp);
    let mut pseudo = [from.octets(), to.octets(), [0, 17, 0, 0]].concat();
    pseudo[10..12].copy_from_slice(&length(udp.len()));
    let sum = match checksum(&[&pseudo, &udp]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    let mut ip = vec![0x45, 0];
    ip.extend(length(IPV4 + udp.len()));
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let ethernet = [&dhcp_mac(ofport).octets()[..], &gateway_mac().octets(), &[0x08, 0x00]].concat();
    [ethernet, ip, udp].concat()
}

/// The Internet checksum (RFC 1071); every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// What a whole IPv4 datagram to the DHCP server's port carries.
fn udp_payload(ip: &[u8]) -> Option<&[u8]> {
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff;
    if ip.first()? >> 4 != 4 || header < IPV4 || fragment != 0 || *ip.get(9)? != 17 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let udp = ip.get(header..total)?;
    (udp.get(2..4)? == SERVER.to_be_bytes()).then(|| udp.get(UDP..))?
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// The options of a message.
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    fn get(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            match rest {
                [0, after @ ..] => rest = after,
                [255, ..] | [] | [_] => return None,
                [code, length, after @ ..] => {
                    let value = after.get(..usize::from(*length))?;
                    if *code == wanted {
                        return Some(value);
                    }
                    rest = &after[value.len()..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
