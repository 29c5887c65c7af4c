//! The words that a task is about, to find what matters in long texts and many links. Counting them is no understanding,
//! and is meant to be none: it decides what a model gets to see, and a model decides what it means.

/// Words that are kept.
const WORDS_MAX: usize = 40;
/// Shortest word.
const WORD_CHARS_MIN: usize = 3;
/// Longest word; what is longer is no word.
const WORD_CHARS_MAX: usize = 40;

/// Words that stand in every task and in every text.
const COMMON: &str = "about above after again against all also and any are attached because been before being below both \
    but can could did does doing down each every few file files find for from further goal had has have having her here \
    how into its itself just list make more most name not now off once only other our out over own page please read \
    report research same say search should some source sources such summarize summary task tell than that the their \
    them then there these they this those through too under until use using very was were what when where which while \
    who why will with write you your";

/// The words of a task, the longest first: small letters, each once, without URLs and words that say nothing.
pub fn words_of(text: &str) -> Vec<String> {
    let common: Vec<&str> = COMMON.split_whitespace().collect();
    let mut words: Vec<String> = Vec::new();
    for token in text.split_whitespace().filter(|token| !token.contains("://")) {
        for word in token.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let word = word.to_lowercase();
            let chars = word.chars().count();
            let fits = (WORD_CHARS_MIN..=WORD_CHARS_MAX).contains(&chars) && !common.contains(&word.as_str());
            if fits && words.len() < WORDS_MAX && !words.contains(&word) {
                words.push(word);
            }
        }
    }
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    words
}

/// How many of `words` stand in `text`.
pub(super) fn count(words: &[String], text: &str) -> usize {
    let text = text.to_lowercase();
    words.iter().filter(|word| text.contains(word.as_str())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_say_something_are_kept() {
        let words = words_of("Find out which port the NATS server uses, see http://docs.example.com/nats; the Port!");
        assert_eq!(words, ["server", "port", "nats", "uses", "see"]);
        assert!(words_of(&(0..1_000).map(|n| format!("word{n} ")).collect::<String>()).len() == WORDS_MAX);
    }
}
