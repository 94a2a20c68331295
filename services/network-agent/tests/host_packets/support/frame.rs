//! Frames made by hand, for what no ordinary program sends.

use cloud_domain::MacAddr;

use super::guest::Guest;

const FRAME: &str = "CLOUD_TEST_FRAME";

/// A ping, after a VLAN tag if there is one.
pub fn ping(from: (&str, &str), to: (&str, &str), vlan: Option<u16>) -> Vec<u8> {
    let mac = |text: &str| text.parse::<MacAddr>().unwrap().octets();
    let ip = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut frame = [mac(to.0), mac(from.0)].concat();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([0x08, 0x00]);
    let mut header = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0];
    header.extend([ip(from.1), ip(to.1)].concat());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut echo = vec![8, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    [frame, header, echo].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

impl Guest {
    /// Sends a frame five times. This program does it, started again inside the guest.
    pub fn send(&self, frame: &[u8]) {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let program = std::env::current_exe().unwrap();
        let variable = format!("{FRAME}={hex}");
        self.ok(&["env", &variable, program.to_str().unwrap(), "--exact", "support::frame::process"]);
    }
}

/// Not a test: where this program starts again as a sender. Without a frame it has nothing to do.
#[test]
fn process() {
    let Ok(hex) = std::env::var(FRAME) else { return };
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let frame: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let interfaces = pnet_datalink::interfaces();
    let nic = interfaces.iter().find(|interface| interface.name == "eth0").expect("eth0");
    let pnet_datalink::Channel::Ethernet(mut sender, _) = pnet_datalink::channel(nic, Default::default()).unwrap()
    else {
        panic!("eth0 is not Ethernet");
    };
    for _ in 0..5 {
        sender.send_to(&frame, None).unwrap().unwrap();
    }
}
