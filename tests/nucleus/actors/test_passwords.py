"""Debug passwords: valid for their time, forgotten oldest first."""

from __future__ import annotations

from nucleus.actors import passwords


def test_password_when_made_then_accepted_until_its_time() -> None:
    now = [1000.0]
    known = passwords.Passwords(lambda: now[0])
    made = known.create()

    assert made.expires_at == 1000.0 + passwords.VALID_S
    assert known.accepts("debug", made.password)
    assert not known.accepts("root", made.password)
    assert not known.accepts("debug", made.password + "x")
    now[0] = made.expires_at
    assert not known.accepts("debug", made.password)


def test_passwords_when_many_are_made_then_the_oldest_go_and_nothing_of_them_stays() -> None:
    known = passwords.Passwords()
    made = [known.create().password for _ in range(passwords.KEPT + 1)]

    assert len(set(made)) == len(made)
    assert [known.accepts("debug", one) for one in made] == [False] + [True] * passwords.KEPT
    assert not any(one.encode() in repr(vars(known)).encode() for one in made)
