//! Addresses: networks, MAC addresses, virtual network identifiers.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::PortId;

/// Why a text or number is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `a.b.c.d/len`.
    #[error("`{0}` is not an IPv4 network such as 10.0.0.0/24")]
    Cidr(String),
    /// Bits set beyond the prefix.
    #[error("`{0}` has host bits set; the network is {1}")]
    HostBits(String, String),
    /// Outside the private ranges of RFC 1918 and the shared range of RFC 6598.
    #[error("`{0}` is not private: use a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10")]
    NotPrivate(String),
    /// Too small or too large.
    #[error("`{0}` must have a prefix length of {1} to {2}")]
    PrefixLength(String, u8, u8),
    /// Not six hex pairs.
    #[error("`{0}` is not a MAC address such as 52:54:00:12:34:56")]
    Mac(String),
    /// Not 1 to 16,777,215.
    #[error("{0} is not a virtual network identifier (1 to 16777215)")]
    Vni(u64),
}

/// A private IPv4 network without host bits, such as `10.0.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr(Ipv4Net);

impl Cidr {
    /// Addresses at the start of a subnet that no guest gets: the network's and the gateway's.
    const RESERVED_AT_START: u32 = 2;

    /// The network address and prefix length.
    #[must_use]
    pub const fn net(&self) -> Ipv4Net {
        self.0
    }

    /// The virtual router's address: the first one after the network's.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + 1)
    }

    /// How many addresses guests can have (all but network, gateway and broadcast).
    #[must_use]
    pub fn guest_count(&self) -> u32 {
        let size = 1_u64 << (32 - u32::from(self.0.prefix_len()));
        u32::try_from(size.saturating_sub(u64::from(Self::RESERVED_AT_START) + 1)).unwrap_or(u32::MAX)
    }

    /// The guest address at `index`, from 0 to `guest_count() - 1`.
    #[must_use]
    pub fn guest(&self, index: u32) -> Option<Ipv4Addr> {
        (index < self.guest_count())
            .then(|| Ipv4Addr::from(u32::from(self.0.network()) + Self::RESERVED_AT_START + index))
    }

    /// Whether a guest may have this address.
    #[must_use]
    pub fn is_guest(&self, ip: Ipv4Addr) -> bool {
        self.0.contains(&ip) && ip != self.0.network() && ip != self.0.broadcast() && ip != self.gateway()
    }

    /// Whether `other` lies within this network.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let net: Ipv4Net = text.parse().map_err(|_| AddressError::Cidr(text.chars().take(80).collect()))?;
        if net.trunc() != net {
            return Err(AddressError::HostBits(net.to_string(), net.trunc().to_string()));
        }
        if !(8..=29).contains(&net.prefix_len()) {
            return Err(AddressError::PrefixLength(net.to_string(), 8, 29));
        }
        let private = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)]
            .into_iter()
            .any(|(ip, len)| Ipv4Net::new_assert(ip.into(), len).contains(&net));
        if private { Ok(Self(net)) } else { Err(AddressError::NotPrivate(net.to_string())) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unicast MAC address, printed as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address of a port: `52:54`, locally administered as QEMU's own are, and the last four bytes of the port's random id. With three, every
    /// thirtieth VPC of a thousand ports would have refused a launch. Unique within a VPC only because the database says so.
    #[must_use]
    pub fn for_port(port: PortId) -> Self {
        let b = port.as_uuid().as_bytes();
        Self([0x52, 0x54, b[12], b[13], b[14], b[15]])
    }

    /// The six bytes.
    #[must_use]
    pub const fn octets(&self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl FromStr for MacAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::Mac(text.chars().take(80).collect());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // The lowest bit of the first byte marks a group address (IEEE 802).
        if parts.next().is_some() || octets[0] & 1 == 1 || text.contains('+') {
            return Err(bad());
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddr({self})")
    }
}

/// A virtual network identifier: 24 bits, not 0 (RFC 8926, section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The largest one.
    pub const MAX: u32 = 0x00ff_ffff;

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = AddressError;

    fn try_from(number: u32) -> Result<Self, AddressError> {
        if (1..=Self::MAX).contains(&number) { Ok(Self(number)) } else { Err(AddressError::Vni(number.into())) }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
