//! How are roles, modes and datapaths spelled, and which word did the user mean?

use std::{error::Error, fmt, str::FromStr};

use super::{Datapath, Mode, Role};

/// A type whose values are words on the command line, in the file and in JSON.
pub trait Word: Copy + Default + PartialEq + 'static {
    /// What the words are, for messages.
    const WHAT: &'static str;
    /// Every value and its word.
    const ALL: &'static [(Self, &'static str)];
    /// Words of older releases, which files may still use.
    const FORMER: &'static [(&'static str, Self)] = &[];

    /// The word of this value.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(value, _)| *value == self).map_or("", |(_, word)| word)
    }

    /// The value of this word.
    fn from_word(text: &str) -> Result<Self, WordError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text).map(|(value, _)| *value);
        found.ok_or_else(|| WordError {
            what: Self::WHAT,
            text: text.to_owned(),
            words: Self::ALL.iter().map(|(_, word)| *word).collect(),
        })
    }
}

impl Word for Role {
    const WHAT: &'static str = "role";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Uplink, "uplink"), (Self::Downlink, "downlink")];
    /// "Access port" is a VLAN's word.
    const FORMER: &'static [(&'static str, Self)] = &[("access", Self::Downlink)];
}

impl Word for Mode {
    const WHAT: &'static str = "mode";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Bridge, "bridge"),
        (Self::Vepa, "vepa"),
        (Self::Private, "private"),
        (Self::Passthru, "passthru"),
        (Self::Source, "source"),
    ];
}

impl Word for Datapath {
    const WHAT: &'static str = "datapath";
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Auto, "auto"), (Self::Xdp, "xdp"), (Self::XdpGeneric, "xdp-generic"), (Self::Tc, "tc")];
}

macro_rules! spell {
    ($($word:ty),*) => {$(
        impl FromStr for $word {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                Self::from_word(text)
            }
        }

        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    )*};
}

spell!(Role, Mode, Datapath);

/// A text that is none of the words in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordError {
    what: &'static str,
    text: String,
    words: Vec<&'static str>,
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} {:?}; ", self.what, self.text)?;
        match closest(&self.text, &self.words) {
            Some(word) => write!(f, r#"did you mean "{word}"?"#),
            None => write!(f, "known are {}", self.words.join(", ")),
        }
    }
}

impl Error for WordError {}

/// The word that `text` is probably meant to be.
pub fn closest(text: &str, words: &[&'static str]) -> Option<&'static str> {
    let tidy = text.to_lowercase().replace('_', "-");
    words
        .iter()
        .map(|&word| (distance(&tidy, word), word))
        .filter(|&(distance, word)| distance <= word.len() / 3)
        .min()
        .map(|(_, word)| word)
}

/// Edits that make one of the other: insert, delete, replace, or swap two neighbours (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, &a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in other.iter().enumerate() {
            let mut cost = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == other[j - 1] && one[i - 1] == b {
                cost = cost.min(rows[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back() {
        fn check<W: Word + fmt::Debug>() {
            for &(value, word) in W::ALL {
                assert_eq!((value.word(), W::from_word(word)), (word, Ok(value)));
            }
        }
        check::<Role>();
        check::<Mode>();
        check::<Datapath>();
        assert_eq!(Mode::default().to_string(), "bridge");
        assert_eq!("xdp-generic".parse(), Ok(Datapath::XdpGeneric));
    }

    #[test]
    fn a_near_miss_is_guessed_and_another_word_is_not() {
        let says = |text: &str| text.parse::<Mode>().unwrap_err().to_string();
        assert_eq!(says("brigde"), r#"unknown mode "brigde"; did you mean "bridge"?"#);
        assert_eq!(says("Vepa"), r#"unknown mode "Vepa"; did you mean "vepa"?"#);
        assert_eq!(
            says("trunk"),
            r#"unknown mode "trunk"; known are bridge, vepa, private, passthru, source"#
        );
        assert_eq!(
            "xpd".parse::<Datapath>().unwrap_err().to_string(),
            r#"unknown datapath "xpd"; did you mean "xdp"?"#
        );
        assert_eq!(
            "up".parse::<Role>().unwrap_err().to_string(),
            r#"unknown role "up"; known are uplink, downlink"#
        );
        assert_eq!(closest("fdb_max", &["ageing", "fdb-max"]), Some("fdb-max"));
    }
}
