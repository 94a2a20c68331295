use proptest::prelude::*;

use super::*;

#[test]
fn bad_networks_say_what_is_wrong() {
    for (text, part) in [
        ("10.0.0.0", "not an IPv4 network"),
        ("fd00::/64", "not an IPv4 network"),
        ("10.0.0.1/24", "the network is 10.0.0.0/24"),
        ("8.8.8.0/24", "not private"),
        ("10.0.0.0/30", "prefix length of 8 to 29"),
        ("0.0.0.0/0", "prefix length"),
    ] {
        let error = text.parse::<Cidr>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn the_smallest_subnet_has_five_guests() {
    let cidr: Cidr = "10.1.2.8/29".parse().unwrap();
    assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 1, 2, 9));
    let guests: Vec<_> = (0..9).map_while(|i| cidr.guest(i)).collect();
    assert_eq!(guests.first(), Some(&Ipv4Addr::new(10, 1, 2, 10)));
    assert_eq!(guests.last(), Some(&Ipv4Addr::new(10, 1, 2, 14)));
    assert_eq!(guests.len(), 5);
}

#[test]
fn group_and_misspelt_macs_are_refused() {
    for bad in
        ["", "01:00:5e:00:00:01", "52:54:00:12:34", "52:54:00:12:34:56:78", "5:54:00:12:34:56", "+2:54:00:12:34:56"]
    {
        assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn guests_are_guests(len in 8_u8..=29, index in any::<u32>()) {
        let cidr: Cidr = format!("10.0.0.0/{len}").parse().unwrap();
        match cidr.guest(index) {
            Some(ip) => prop_assert!(cidr.is_guest(ip)),
            None => prop_assert!(index >= cidr.guest_count()),
        }
    }

    #[test]
    fn macs_survive_printing(port in any::<u128>()) {
        let mac = MacAddr::for_port(uuid::Uuid::from_u128(port).into());
        prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
    }

    #[test]
    fn ports_that_differ_in_one_of_32_bits_have_their_own_macs(one in any::<u32>(), bit in 0..32) {
        let [one, other] = [one, one ^ (1_u32 << bit)].map(|n| MacAddr::for_port(uuid::Uuid::from_u128(n.into()).into()));
        prop_assert_ne!(one, other);
        prop_assert!(one.octets()[0] & 0b11 == 0b10, "a guest's own unicast address");
    }

    #[test]
    fn vnis_are_24_bits(number in any::<u32>()) {
        prop_assert_eq!(Vni::try_from(number).is_ok(), (1..(1 << 24)).contains(&number));
    }
}
