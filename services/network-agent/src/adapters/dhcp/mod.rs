//! The DHCP responder: one packet socket for all VPCs of the host.
//!
//! It runs on a thread of its own because packet sockets have no place in the async runtime. The device belongs to the switch, which
//! makes it anew when it restarts (userspace datapath): any error, and any change of the device, opens the socket again.

mod packet;

use std::{fs, io, os::fd::IntoRawFd, time::Duration};

use pnet_datalink::{Channel, ChannelType, Config, DataLinkReceiver, DataLinkSender, NetworkInterface};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::core::dhcp::{LeaseTable, decide};

/// How long the thread waits for a packet before it looks around.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// How long to wait before the socket is opened again.
const RETRY: Duration = Duration::from_millis(200);

/// Answers requests on `device` until `shutdown`, which takes half a second at most. Blocks: give it a
/// thread of the runtime (`spawn_blocking`).
pub fn serve(device: &str, leases: &LeaseTable, shutdown: &CancellationToken) {
    let runtime = Handle::current();
    let mut complained = false;
    while !shutdown.is_cancelled() {
        match open(device) {
            Ok(mut socket) => {
                tracing::info!(device, "answering DHCP");
                complained = false;
                let error = socket.answer_all(leases, shutdown);
                tracing::debug!(device, ?error, "the DHCP responder's socket ended");
            }
            // The device appears when the bridge is made, which is reported elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if !complained => {
                tracing::warn!(device, %error, "cannot answer DHCP: trying again until it works");
                complained = true;
            }
            Err(_) => {}
        }
        // Blocks no worker: this thread has nothing else to do.
        let _ = runtime.block_on(tokio::time::timeout(RETRY, shutdown.cancelled()));
    }
}

struct Socket {
    device: String,
    index: u32,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

fn open(device: &str) -> io::Result<Socket> {
    let index = index(device)?;
    // Without a protocol it receives nothing until it is bound to the device.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let config = Config {
        read_timeout: Some(LOOK_AROUND),
        write_timeout: Some(LOOK_AROUND),
        channel_type: ChannelType::Layer2,
        promiscuous: false,
        socket_fd: Some(socket.into_raw_fd()),
        ..Config::default()
    };
    let interface = NetworkInterface {
        name: device.to_owned(),
        description: String::new(),
        index,
        mac: None,
        ips: Vec::new(),
        flags: 0,
    };
    match pnet_datalink::channel(&interface, config)? {
        Channel::Ethernet(sender, receiver) => Ok(Socket { device: device.to_owned(), index, sender, receiver }),
        _ => Err(io::Error::other("not an Ethernet device")),
    }
}

fn index(device: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{device} has no interface index")))
}

impl Socket {
    /// Until something breaks; none at shutdown.
    fn answer_all(&mut self, leases: &LeaseTable, shutdown: &CancellationToken) -> Option<io::Error> {
        while !shutdown.is_cancelled() {
            let reply = match self.receiver.next() {
                Ok(frame) => reply(frame, leases),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    match index(&self.device) {
                        Ok(index) if index == self.index => {}
                        Ok(_) => return Some(io::Error::other("the device was made anew")),
                        Err(error) => return Some(error),
                    }
                    None
                }
                Err(error) => return Some(error),
            };
            if let Some(Err(error)) = reply.and_then(|frame| self.sender.send_to(&frame, None)) {
                return Some(error);
            }
        }
        None
    }
}

fn reply(frame: &[u8], leases: &LeaseTable) -> Option<Vec<u8>> {
    let incoming = packet::parse(frame)?;
    let Some(lease) = leases.get(incoming.ofport) else {
        tracing::debug!(ofport = incoming.ofport, "a DHCP request from a port without a lease");
        return None;
    };
    let verdict = decide(&lease, &incoming.request);
    // A guest decides how often this happens, so it must not fill the log.
    tracing::debug!(port = %lease.port, ip = %lease.ip, request = ?incoming.request, ?verdict, "DHCP");
    packet::answer(&incoming, &lease, verdict)
}
