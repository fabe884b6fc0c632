//! Is this text the MAC address of a station, and if not, what is wrong with it?

use std::{error::Error, fmt};

use vswitch_ebpf::frame::MacAddr;

/// Why a text is not a MAC address, or not a station's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MacError {
    /// Not six pairs of hexadecimal digits.
    Syntax {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Multicast or broadcast.
    Group(MacAddr),
    /// 00:00:00:00:00:00.
    Zero,
}

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { text, cause } => {
                write!(f, "{text:?} is not a MAC address: {cause}; write it like 02:00:00:00:00:01")
            }
            Self::Group(mac) => {
                write!(f, r#""{mac}" is a group address: a station's address is even in its first byte"#)
            }
            Self::Zero => f.write_str(
                r#""00:00:00:00:00:00" is no station's address; write the one that it sends from"#,
            ),
        }
    }
}

impl Error for MacError {}

/// A station's address as the user writes it: [`parse_mac`] and [`check_station`].
pub fn parse_station(text: &str) -> Result<MacAddr, MacError> {
    let mac = parse_mac(text)?;
    check_station(mac)?;
    Ok(mac)
}

/// Any address: aa:bb:cc:dd:ee:ff, with `-` for `:` if need be, in either case.
pub fn parse_mac(text: &str) -> Result<MacAddr, MacError> {
    let syntax = |cause: String| MacError::Syntax { text: text.to_owned(), cause };
    let separator = match (text.contains(':'), text.contains('-')) {
        (true, true) => return Err(syntax("it mixes ':' and '-'".to_owned())),
        (false, true) => '-',
        _ => ':',
    };
    let parts: Vec<&str> = text.split(separator).collect();
    let mut bytes = [0; 6];
    if parts.len() != bytes.len() {
        return Err(syntax(format!("it has {} of 6 bytes", if text.is_empty() { 0 } else { parts.len() })));
    }
    for (byte, part) in bytes.iter_mut().zip(parts) {
        let value = (part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten();
        *byte = value.ok_or_else(|| syntax(format!("{part:?} is not two hexadecimal digits")))?;
    }
    Ok(MacAddr(bytes))
}

/// Refuses addresses from which no station sends.
pub fn check_station(mac: MacAddr) -> Result<(), MacError> {
    if mac.is_group() {
        return Err(MacError::Group(mac));
    }
    if mac.is_zero() {
        return Err(MacError::Zero);
    }
    Ok(())
}

/// An address in a serialized document.
pub(super) mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use vswitch_ebpf::frame::MacAddr;

    pub(in crate::config) fn serialize<S: Serializer>(mac: &MacAddr, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(mac)
    }

    pub(in crate::config) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<MacAddr, D::Error> {
        super::parse_mac(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A list of them.
pub(super) mod texts {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use vswitch_ebpf::frame::MacAddr;

    pub(in crate::config) fn serialize<S: Serializer>(macs: &[MacAddr], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(macs.iter().map(ToString::to_string))
    }

    pub(in crate::config) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<MacAddr>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| super::parse_mac(text).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> String {
        parse_station(text).unwrap_err().to_string()
    }

    #[test]
    fn both_separators_and_both_cases() {
        let mac = MacAddr([0x02, 0xab, 0, 0, 0, 0x0f]);
        assert_eq!(parse_station("02:ab:00:00:00:0f"), Ok(mac));
        assert_eq!(parse_station("02-AB-00-00-00-0F"), Ok(mac));
        assert_eq!(parse_mac("ff:ff:ff:ff:ff:ff"), Ok(MacAddr::BROADCAST));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, cause) in [
            ("", "it has 0 of 6 bytes"),
            ("web0", "it has 1 of 6 bytes"),
            ("02:00:00:00:00", "it has 5 of 6 bytes"),
            ("02:00:00:00:00:01:", "it has 7 of 6 bytes"),
            ("02:00-00:00:00:01", "it mixes ':' and '-'"),
            ("2:00:00:00:00:01", r#""2" is not two hexadecimal digits"#),
            ("02:00:00:00:00:0g", r#""0g" is not two hexadecimal digits"#),
            ("02:00:00:00:00:+1", r#""+1" is not two hexadecimal digits"#),
        ] {
            let whole = format!("{text:?} is not a MAC address: {cause}; write it like 02:00:00:00:00:01");
            assert_eq!(says(text), whole);
        }
        assert_eq!(
            says("01:00:5e:00:00:01"),
            r#""01:00:5e:00:00:01" is a group address: a station's address is even in its first byte"#
        );
        assert_eq!(
            says("00:00:00:00:00:00"),
            r#""00:00:00:00:00:00" is no station's address; write the one that it sends from"#
        );
    }
}
