//! Which options set a port's flags? One for each row of [`PORT_FLAGS`].

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use super::super::value::{Switch, on_off};
use crate::config::{Flags, PORT_FLAGS, PortFlag};

/// The bits of the flags that the user names, and what they are to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FlagOptions(pub(super) Vec<(u32, bool)>);

impl FlagOptions {
    /// Sets the flags that are named.
    pub(super) fn put(&self, flags: &mut Flags) {
        for &(bit, on) in &self.0 {
            flags.set(bit, on);
        }
    }
}

impl Args for FlagOptions {
    /// First what is for one mode alone, beside that mode's other options.
    fn augment_args(command: Command) -> Command {
        let (of_a_mode, others): (Vec<_>, Vec<_>) = PORT_FLAGS.iter().partition(|flag| flag.mode.is_some());
        command.args(of_a_mode.into_iter().chain(others).map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FlagOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let named = |flag: &PortFlag| {
            let value: &Switch = matches.get_one(flag.key)?;
            Some((flag.bit, *value == Switch::On))
        };
        Ok(Self(PORT_FLAGS.iter().filter_map(named).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

fn option(flag: &PortFlag) -> Arg {
    let usual = on_off(flag.usual);
    let default = match flag.known == flag.usual {
        true => usual.to_owned(),
        false => format!("{usual}; {} where the address is known", on_off(flag.known)),
    };
    Arg::new(flag.key)
        .long(flag.key)
        .help(format!("{} [default: {default}]", flag.help))
        .value_name("on|off")
        .value_parser(value_parser!(Switch))
        .hide_possible_values(true)
}
