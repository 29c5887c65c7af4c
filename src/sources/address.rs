//! What an address leads to. Only what is public by its number may be asked; everything else leads into this machine, its
//! networks or its cloud's control plane, where a stranger's page must not make us ask for anything.
//!
//! The list is the IANA special-purpose registries, read strictly: of IPv6 only global unicast is public, and an address
//! that carries an IPv4 address inside is what that one is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This machine.
    Loopback,
    /// A private network (RFC 1918).
    Private,
    /// A carrier's shared network (RFC 6598).
    Shared,
    /// A private network of IPv6 (RFC 4193).
    UniqueLocal,
    /// The cable itself.
    LinkLocal,
    /// A cloud's service that gives keys to whoever asks from inside.
    Metadata,
    /// Many at once.
    Multicast,
    /// Everybody on a network.
    Broadcast,
    /// No address.
    Unspecified,
    /// For documents and measurements.
    Documentation,
    /// A tunnel whose other end cannot be told.
    Tunnel,
    /// Reserved for protocols or for later.
    Reserved,
}

/// Addresses of cloud metadata services. The first ones are link-local or private as well; the last two look harmless. The
/// services of EC2 at IPv6 have a network of their own, `fd00:ec2::/32`.
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

impl Kind {
    /// True for what a host that was allowed by its name may be at: inside, but a host like any other.
    pub fn is_a_network_of_people(self) -> bool {
        matches!(self, Kind::Loopback | Kind::Private | Kind::Shared | Kind::UniqueLocal)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Loopback => "loopback, this machine",
            Kind::Private => "a private network",
            Kind::Shared => "a carrier's shared network",
            Kind::UniqueLocal => "a private network (unique local)",
            Kind::LinkLocal => "link-local",
            Kind::Metadata => "a cloud's metadata service",
            Kind::Multicast => "multicast",
            Kind::Broadcast => "broadcast",
            Kind::Unspecified => "unspecified",
            Kind::Documentation => "for documentation or benchmarks",
            Kind::Tunnel => "a tunnel to somewhere unknown",
            Kind::Reserved => "reserved",
        })
    }
}

/// What makes `address` not public; `None` for a public one.
pub fn kind_of(address: IpAddr) -> Option<Kind> {
    if METADATA.contains(&address) {
        return Some(Kind::Metadata);
    }
    match address {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Option<Kind> {
    match address.octets() {
        [0, 0, 0, 0] => Some(Kind::Unspecified),
        [0, ..] => Some(Kind::Reserved),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Kind::Private),
        [100, 64..=127, ..] => Some(Kind::Shared),
        [127, ..] => Some(Kind::Loopback),
        [169, 254, ..] => Some(Kind::LinkLocal),
        [192, 0, 0, _] => Some(Kind::Reserved),
        [192, 88, 99, _] => Some(Kind::Tunnel),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => Some(Kind::Documentation),
        [224..=239, ..] => Some(Kind::Multicast),
        [255, 255, 255, 255] => Some(Kind::Broadcast),
        [240..=255, ..] => Some(Kind::Reserved),
        _ => None,
    }
}

fn kind_of_v6(address: Ipv6Addr) -> Option<Kind> {
    let low = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Kind::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Kind::Loopback),
        // The same host, written as IPv6: mapped, and translated by the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => kind_of(low(a, b)),
        // 6to4 and Teredo; what they carry decides the name, but none of them is public.
        [0x2002, a, b, ..] => Some(kind_of(low(a, b)).unwrap_or(Kind::Tunnel)),
        [0x2001, 0, ..] => Some(Kind::Tunnel),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Kind::Documentation),
        [0x2001, 0..=0x1ff, ..] => Some(Kind::Reserved),
        [0xfd00, 0xec2, ..] => Some(Kind::Metadata),
        [0xfc00..=0xfdff, ..] => Some(Kind::UniqueLocal),
        [0xfe80..=0xfeff, ..] => Some(Kind::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Kind::Multicast),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Kind::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_told_by_its_kind() {
        for (text, kind) in [
            ("127.0.0.1", Kind::Loopback),
            ("127.255.255.254", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("::ffff:127.0.0.1", Kind::Loopback),
            ("64:ff9b::7f00:1", Kind::Loopback),
            ("2002:7f00:1::1", Kind::Loopback),
            ("10.0.0.1", Kind::Private),
            ("172.16.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("192.168.1.1", Kind::Private),
            ("::ffff:10.1.2.3", Kind::Private),
            ("64:ff9b::a00:1", Kind::Private),
            ("2002:c0a8:101::", Kind::Private),
            ("100.64.0.1", Kind::Shared),
            ("100.127.255.255", Kind::Shared),
            ("fc00::1", Kind::UniqueLocal),
            ("fdff:ffff::1", Kind::UniqueLocal),
            ("169.254.1.1", Kind::LinkLocal),
            ("fe80::1", Kind::LinkLocal),
            ("fec0::1", Kind::LinkLocal),
            ("169.254.169.254", Kind::Metadata),
            ("::ffff:169.254.169.254", Kind::Metadata),
            ("64:ff9b::a9fe:a9fe", Kind::Metadata),
            ("2002:a9fe:a9fe::", Kind::Metadata),
            ("169.254.170.2", Kind::Metadata),
            ("169.254.170.23", Kind::Metadata),
            ("100.100.100.200", Kind::Metadata),
            ("168.63.129.16", Kind::Metadata),
            ("192.0.0.192", Kind::Metadata),
            ("fd00:ec2::254", Kind::Metadata),
            ("fd00:ec2::23", Kind::Metadata),
            ("fd00:ec2:ffff::1", Kind::Metadata),
            ("fd00:ec3::1", Kind::UniqueLocal),
            ("fd20:ce::254", Kind::Metadata),
            ("224.0.0.1", Kind::Multicast),
            ("239.255.255.250", Kind::Multicast),
            ("ff02::1", Kind::Multicast),
            ("255.255.255.255", Kind::Broadcast),
            ("0.0.0.0", Kind::Unspecified),
            ("::", Kind::Unspecified),
            ("192.0.2.1", Kind::Documentation),
            ("198.51.100.1", Kind::Documentation),
            ("203.0.113.1", Kind::Documentation),
            ("198.18.0.1", Kind::Documentation),
            ("198.19.255.255", Kind::Documentation),
            ("2001:db8::1", Kind::Documentation),
            ("3fff::1", Kind::Documentation),
            ("2001::1", Kind::Tunnel),
            ("2002:808:808::1", Kind::Tunnel),
            ("192.88.99.1", Kind::Tunnel),
            ("0.1.2.3", Kind::Reserved),
            ("192.0.0.1", Kind::Reserved),
            ("240.0.0.1", Kind::Reserved),
            ("::7f00:1", Kind::Reserved),
            ("64:ff9b:1::1", Kind::Reserved),
            ("100::1", Kind::Reserved),
            ("2001:10::1", Kind::Reserved),
            ("5f00::1", Kind::Reserved),
        ] {
            assert_eq!(kind_of(text.parse().unwrap()), Some(kind), "{text}");
        }
    }

    #[test]
    fn what_is_public_may_be_asked() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(kind_of(text.parse().unwrap()), None, "{text}");
        }
    }
}
