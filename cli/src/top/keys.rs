//! What keys do to the model.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::Model;

/// How it goes on after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    End,
    Interrupt,
}

pub(super) fn press(model: &mut Model, key: KeyEvent) -> Go {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Go::Interrupt } else { Go::On };
    }
    if model.is_typing {
        match key.code {
            KeyCode::Enter => model.is_typing = false,
            KeyCode::Esc => {
                model.is_typing = false;
                model.filter.clear();
            }
            KeyCode::Backspace => drop(model.filter.pop()),
            KeyCode::Char(character) => model.filter.push(character),
            _ => {}
        }
        return Go::On;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Go::End,
        KeyCode::Down | KeyCode::Char('j') => model.select(1),
        KeyCode::Up | KeyCode::Char('k') => model.select(-1),
        KeyCode::Char('s') => model.sort_next(),
        KeyCode::Char('r') => model.reverse = !model.reverse,
        KeyCode::Char('/') => model.is_typing = true,
        KeyCode::Tab | KeyCode::Enter => model.hides_details = !model.hides_details,
        _ => {}
    }
    Go::On
}
