//! How is a switch written down as a file? What has its default is left out, except what a reader looks for.

use std::fmt::Write;

use super::{FarEnd, Mode, PORT_FLAGS, PortConfig, Role, SwitchConfig, words::Word};

/// The file that [`super::parse()`] reads as this switch.
pub fn print(config: &SwitchConfig) -> String {
    let mut file = File { text: String::new() };
    file.switch(config);
    for port in &config.ports {
        file.port(port);
    }
    for entry in &config.fdb {
        file.header("[[fdb]]");
        file.line("mac", &quoted(&entry.mac.to_string()));
        file.line("port", &quoted(&entry.ifname));
        file.unless(entry.vlan == 0, "vlan", &entry.vlan.to_string());
    }
    file.text
}

struct File {
    text: String,
}

impl File {
    fn switch(&mut self, config: &SwitchConfig) {
        let default = SwitchConfig::new(&config.name);
        self.header("[switch]");
        self.line("name", &quoted(&config.name));
        self.unless(config.ageing == default.ageing, "ageing", &config.ageing.to_string());
        self.unless(config.fdb_max == default.fdb_max, "fdb-max", &config.fdb_max.to_string());
        self.unless(
            config.host_access == default.host_access,
            "host-access",
            &config.host_access.to_string(),
        );
        let compat = config.macvlan_compat;
        self.unless(compat == default.macvlan_compat, "macvlan-compat", &compat.to_string());
    }

    fn port(&mut self, port: &PortConfig) {
        let mut default = PortConfig {
            role: port.role,
            mac: port.mac.clone(),
            far_end: port.far_end.clone(),
            ..PortConfig::new(&port.ifname)
        };
        default.set_known_defaults();
        self.header("[[port]]");
        self.line("name", &quoted(&port.ifname));
        self.unless(port.role == Role::Downlink, "role", &quoted(port.role.word()));
        match &port.far_end {
            FarEnd::Existing => {}
            FarEnd::Veth { netns, peer } => {
                self.line("netns", &quoted(netns));
                self.line("peer", &quoted(peer));
            }
            FarEnd::Tap => self.line("tap", "true"),
        }
        self.unless(
            port.role == Role::Uplink && port.mode == Mode::Bridge,
            "mode",
            &quoted(port.mode.word()),
        );
        for (key, addresses) in [("mac", &port.mac), ("source", &port.source)] {
            let texts: Vec<String> = addresses.iter().map(|mac| quoted(&mac.to_string())).collect();
            self.unless(texts.is_empty(), key, &format!("[{}]", texts.join(", ")));
        }
        for flag in PORT_FLAGS {
            let on = port.flags.has(flag.bit);
            self.unless(on == default.flags.has(flag.bit), flag.key, &on.to_string());
        }
        self.unless(port.datapath == default.datapath, "datapath", &quoted(port.datapath.word()));
    }

    fn header(&mut self, header: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(gap);
        self.text.push_str(header);
        self.text.push('\n');
    }

    fn line(&mut self, key: &str, value: &str) {
        for part in [key, " = ", value, "\n"] {
            self.text.push_str(part);
        }
    }

    fn unless(&mut self, default: bool, key: &str, value: &str) {
        if !default {
            self.line(key, value);
        }
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{document::Document, parse, parse::read, samples};

    #[test]
    fn what_a_reader_sees() {
        let config = samples::office();
        assert_eq!(print(&config), samples::OFFICE);
        assert_eq!(parse("office.toml", samples::OFFICE, None), Ok(config));
    }

    #[test]
    fn every_text_survives() {
        let mut config = SwitchConfig::new("vs0");
        config.ports.push(PortConfig::new("q\"\\\u{1}\u{7f}\u{85}é"));
        assert_eq!(read(&mut Document::new(&print(&config)), None), config);
    }

    proptest! {
        #[test]
        fn a_printed_switch_is_read_back(config in samples::switch()) {
            prop_assert_eq!(parse("x", &print(&config), None), Ok(config));
        }

        /// Also with what the rules do not allow yet.
        #[test]
        fn modes_and_vlans_are_read_back(config in samples::future_switch()) {
            let text = print(&config);
            let mut document = Document::new(&text);
            prop_assert_eq!(read(&mut document, None), config);
            prop_assert!(document.errors.is_empty());
        }

        /// And in the pinned document.
        #[test]
        fn a_serialized_switch_is_read_back(config in samples::future_switch()) {
            let text = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(serde_json::from_str::<SwitchConfig>(&text).unwrap(), config);
        }
    }
}
