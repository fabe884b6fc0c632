//! Is every file read as a switch that is printed and read back as the same, or refused line by line?

use std::str;

use vswitch::config::{parse, print::print};

use super::assert_one_line;

const FILE: &str = "fuzz.toml";

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let lines = text.bytes().filter(|&byte| byte == b'\n').count() + 1;
    match parse(FILE, text, None) {
        Ok(switch) => {
            assert_eq!(switch.validate(), []);
            let printed = print(&switch);
            assert_eq!(parse(FILE, &printed, None).as_ref(), Ok(&switch), "printed as\n{printed}");
            // A file is for the switch that it names.
            assert_eq!(parse(FILE, text, Some(&switch.name)).as_ref(), Ok(&switch));
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(errors.0.is_sorted_by_key(|error| error.line), "{errors}");
            for error in &errors.0 {
                assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
                assert_one_line(&error.to_string());
            }
        }
    }
}
