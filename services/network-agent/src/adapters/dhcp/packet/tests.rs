use proptest::prelude::*;

use super::*;

fn lease() -> Lease {
    Lease {
        port: cloud_domain::PortId::random(),
        mac: [0x52, 0x54, 0, 0, 0, 1].into(),
        ip: Ipv4Addr::new(10, 0, 0, 2),
        mask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        dns: vec![Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)],
        mtu: 1450,
        hostname: "web-01".to_owned(),
    }
}

/// A request as the switch hands it on: from port 0x0203.
fn ask(kind: u8, options: &[u8], ciaddr: Ipv4Addr, flags: u8) -> Vec<u8> {
    let mut bootp = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, flags, 0];
    bootp.extend(ciaddr.octets());
    bootp.resize(28, 0);
    bootp.extend(lease().mac.octets());
    bootp.resize(BOOTP, 0);
    bootp.extend(MAGIC);
    bootp.extend([0, 53, 1, kind]);
    bootp.extend(options);
    bootp.push(255);
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let udp = [&[0, 68, 0, 67][..], &length(8 + bootp.len()), &[0, 0], &bootp].concat();
    let ip =
        [&[0x45, 0][..], &length(20 + udp.len()), &[0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]].concat();
    [&[2, 0x64, 0x68, 0x63, 255, 255, 2, 0x64, 0x68, 0x63, 2, 3, 8, 0][..], &ip, &udp].concat()
}

#[test]
fn a_request_is_read() {
    let options = [50, 4, 10, 0, 0, 2, 54, 4, 10, 0, 0, 1];
    let incoming = parse(&ask(3, &options, Ipv4Addr::UNSPECIFIED, 0x80)).unwrap();
    assert_eq!((incoming.ofport, incoming.broadcast, incoming.request.ask), (0x0203, true, Ask::Request));
    assert_eq!(incoming.request.wanted, Some(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(incoming.request.server, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(incoming.request.chaddr, lease().mac);
}

#[test]
fn an_offer_says_all_that_the_lease_says() {
    let incoming = parse(&ask(1, &[], Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let frame = answer(&incoming, &lease(), Verdict::Offer).unwrap();
    assert_eq!(frame[..14], [2, 0x64, 0x68, 0x63, 2, 3, 2, 0x63, 0x6c, 0x6f, 0x75, 0x64, 8, 0]);
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    assert_eq!(checksum(&[ip]), 0, "the IP checksum");
    let pseudo = [&ip[12..20], &[0, 17], &udp[4..6]].concat();
    assert_eq!(checksum(&[&pseudo, udp]), 0, "the UDP checksum");
    assert_eq!((&ip[12..16], &ip[16..20]), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
    let bootp = &udp[8..];
    assert!(bootp.len() >= BOOTP_MINIMUM);
    assert_eq!((bootp[0], &bootp[4..8], &bootp[16..20]), (2, &[0xde, 0xad, 0xbe, 0xef][..], &[10, 0, 0, 2][..]));
    let options = Options(&bootp[BOOTP + 4..]);
    let expected: [(u8, &[u8]); 10] = [
        (53, &[2]),
        (54, &[10, 0, 0, 1]),
        (51, &[0, 0, 0x0e, 0x10]),
        (58, &[0, 0, 0x07, 0x08]),
        (59, &[0, 0, 0x0c, 0x4e]),
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 0, 1]),
        (6, &[9, 9, 9, 9, 1, 1, 1, 1]),
        (12, b"web-01"),
        (26, &[0x05, 0xaa]),
    ];
    for (code, value) in expected {
        assert_eq!(options.get(code), Some(value), "option {code}");
    }
}

#[test]
fn answers_go_where_the_client_can_hear_them() {
    let mine = lease().ip;
    let to = |frame: &[u8]| Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
    let plain = parse(&ask(3, &[], Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let broadcast = parse(&ask(3, &[], Ipv4Addr::UNSPECIFIED, 0x80)).unwrap();
    let renewing = parse(&ask(3, &[], mine, 0)).unwrap();
    assert_eq!(to(&answer(&plain, &lease(), Verdict::Ack).unwrap()), mine);
    assert_eq!(to(&answer(&broadcast, &lease(), Verdict::Ack).unwrap()), Ipv4Addr::BROADCAST);
    assert_eq!(to(&answer(&renewing, &lease(), Verdict::Ack).unwrap()), mine);
    let nak = answer(&renewing, &lease(), Verdict::Nak).unwrap();
    assert_eq!((to(&nak), &nak[58..62]), (Ipv4Addr::BROADCAST, &[0; 4][..]));
    let options = Options(&nak[14 + 28 + BOOTP + 4..]);
    assert_eq!((options.get(53), options.get(51), options.get(1)), (Some(&[6][..]), None, None));
    assert_eq!(answer(&plain, &lease(), Verdict::Ignore), None);
}

#[test]
fn frames_that_are_no_requests_are_ignored() {
    let good = ask(1, &[], Ipv4Addr::UNSPECIFIED, 0);
    assert!(parse(&good).is_some());
    // (byte, value): own answers, other protocols, fragments, other ports, replies, other hardware
    for (at, value) in [(6, 0x52), (12, 0x86), (20, 0x20), (23, 6), (37, 68), (42, 2), (44, 8), (278, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse(&bad), None, "byte {at}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(at in 0_usize..320, value: u8, length in 0_usize..320, junk: Vec<u8>) {
        let mut frame = ask(3, &[50, 4, 1, 2, 3, 4], Ipv4Addr::UNSPECIFIED, 0);
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
        frame.truncate(length);
        let _ = parse(&frame);
        let _ = parse(&junk);
    }
}
