"""Which services listen, as the environment says; and what a call may have of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import pytest

from relay.errors import SettingsError
from relay.listening import Choice, Listening, first_choice
from relay.protocol import Abilities, Endpoint, Limits, Request
from relay.provider import Provider
from services import OFFERS, listeners, what_each_can_do, without_key
from tests.talking import BOTH, CALL, Hasty

DEEPGRAM = {"DEEPGRAM_API_KEY": "s3cret-1"}
GLADIA = {"GLADIA_API_KEY": "s3cret-2"}
ASSEMBLYAI = {"ASSEMBLYAI_API_KEY": "s3cret-3"}
ALL = DEEPGRAM | GLADIA | ASSEMBLYAI


def words(providers: tuple[Provider, ...]) -> list[str]:
    return [provider.traits.word for provider in providers]


def listening_with(environ: Mapping[str, str], **others: str) -> Listening:
    return listeners({**environ, **others})


def refusal(environ: Mapping[str, str], **others: str) -> str:
    with pytest.raises(SettingsError) as raised:
        listening_with(environ, **others)
    for key in ALL.values():
        assert key not in str(raised.value)
    return str(raised.value)


# --- Who listens -------------------------------------------------------------------------------------------------


def test_without_a_key_nobody_listens_and_the_variable_is_named() -> None:
    listening = listeners({})
    assert listening.providers == set()
    assert listening.why_not.startswith("DEEPGRAM_API_KEY is not set")
    assert without_key({}) == "Deepgram"


@pytest.mark.parametrize("word", OFFERS)
def test_the_key_that_is_missing_is_that_of_the_chosen_service(word: str) -> None:
    environ = {name: key for name, key in ALL.items() if name != OFFERS[word].key_variable}
    listening = listening_with(environ, SPEECH_SERVICE=word)
    assert listening.services == ()
    assert listening.why_not.startswith(f"{OFFERS[word].key_variable} is not set")
    assert without_key({**environ, "SPEECH_SERVICE": word}) == OFFERS[word].name


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_key_is_none(blank: str) -> None:
    assert listeners({"DEEPGRAM_API_KEY": blank}).services == ()
    assert listening_with(DEEPGRAM, GLADIA_API_KEY=blank).on_request == ()


def test_of_several_that_should_listen_only_those_without_a_key_are_named() -> None:
    environ = DEEPGRAM | {"SPEECH_SERVICES": "deepgram,gladia,assemblyai"}
    assert listeners(environ).why_not.startswith("GLADIA_API_KEY is not set")
    assert without_key(environ) == "Gladia, AssemblyAI"


@pytest.mark.parametrize("word", OFFERS)
def test_the_chosen_service_listens(word: str) -> None:
    listening = listeners({OFFERS[word].key_variable: "key", "SPEECH_SERVICE": word})
    assert words(listening.services) == [word]
    assert listening.providers == set(listening.services)
    assert listening.why_not == ""


def test_deepgram_listens_unless_told_otherwise() -> None:
    assert words(listeners(ALL).services) == ["deepgram"]


def test_those_with_a_key_can_be_asked_for() -> None:
    listening = listening_with(ALL, SPEECH_SERVICE="gladia", SPEECH_FALLBACKS="assemblyai")
    assert words(listening.services) == ["gladia"]
    assert words(listening.fallbacks) == ["assemblyai"]
    assert words(listening.on_request) == ["deepgram"]
    assert words(listeners(DEEPGRAM | GLADIA).on_request) == ["gladia"]
    assert listeners(DEEPGRAM).on_request == ()


def test_fallbacks_keep_their_order() -> None:
    for order in (["gladia", "assemblyai"], ["assemblyai", "gladia"]):
        assert words(listening_with(ALL, SPEECH_FALLBACKS=",".join(order)).fallbacks) == order


def test_several_listen_side_by_side_in_their_order() -> None:
    listening = listening_with(ALL, SPEECH_SERVICES="assemblyai,deepgram", SPEECH_SERVICE="gladia")
    assert words(listening.services) == ["assemblyai", "deepgram"]
    assert words(listening.on_request) == ["gladia"]
    chains, _ = listening.choose({})
    assert [[choice.provider.traits.word for choice in chain] for chain in chains] == [["assemblyai"], ["deepgram"]]


def test_one_alone_side_by_side_may_have_fallbacks() -> None:
    listening = listening_with(ALL, SPEECH_SERVICES="gladia", SPEECH_FALLBACKS="deepgram")
    assert (words(listening.services), words(listening.fallbacks)) == (["gladia"], ["deepgram"])


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"SPEECH_SERVICE": "siri"}, "SPEECH_SERVICE should be deepgram, gladia or assemblyai"),
        ({"SPEECH_SERVICE": "Gladia"}, "SPEECH_SERVICE should be"),
        ({"SPEECH_SERVICES": "deepgram,siri"}, "SPEECH_SERVICES should be some of deepgram, gladia, assemblyai"),
        ({"SPEECH_SERVICES": "gladia,gladia"}, "SPEECH_SERVICES should be"),
        ({"SPEECH_FALLBACKS": "siri"}, "SPEECH_FALLBACKS should be some of"),
        ({"SPEECH_FALLBACKS": "gladia", "SPEECH_SERVICES": "deepgram,assemblyai"}, "SPEECH_FALLBACKS works with one"),
        ({"SPEECH_FALLBACKS": "gladia,deepgram"}, "SPEECH_FALLBACKS names the service that it should take over from"),
        ({"SPEECH_SERVICE": "gladia", "SPEECH_FALLBACKS": "gladia"}, "SPEECH_FALLBACKS names the service"),
        ({"ASSEMBLYAI_SPEECH_MODEL": "parrot"}, "ASSEMBLYAI_SPEECH_MODEL should be"),
        ({"SERVICE_SILENCE_SECONDS": "0"}, "SERVICE_SILENCE_SECONDS should be"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_variables_name(others: dict[str, str], says: str) -> None:
    assert refusal(ALL, **others).startswith(says)


def test_a_fallback_without_a_key_is_refused_before_it_is_needed() -> None:
    sentence = refusal(DEEPGRAM, SPEECH_FALLBACKS="gladia")
    assert sentence == "SPEECH_FALLBACKS names gladia, and GLADIA_API_KEY is not set."


def test_the_key_and_the_settings_are_those_of_the_service() -> None:
    listening = listening_with(ALL, GLADIA_CONNECTIONS="7", ASSEMBLYAI_SESSIONS_PER_MINUTE="5")
    limits = {provider.traits.word: provider.service.limits for provider in listening.providers}
    assert limits["gladia"] == Limits(7)
    assert limits["assemblyai"].sessions_per_minute == 5
    for provider in listening.providers:
        own = OFFERS[provider.traits.word].key_variable
        shown = request_of(provider)
        assert [name for name, key in ALL.items() if key in shown] == [own]


def request_of(provider: Provider) -> str:
    """What a service is told first, in words."""
    protocol = provider.service.protocol(CALL, BOTH[: provider.traits.tracks])
    first: Request | Endpoint = protocol.before() or protocol.endpoint()
    body = first.body.decode() if isinstance(first, Request) else ""
    return f"{first.url} {dict(first.headers)} {body}"


# --- What a call may have of each -------------------------------------------------------------------------------


def asked_of(word: str, environ: dict[str, str], **parameters: str) -> tuple[str, list[str]]:
    """What the service is told for a call with these parameters, and what of them could not be had."""
    (chain,), complaints = listening_with(ALL | environ, SPEECH_SERVICE=word).choose(parameters)
    (choice,) = chain
    assert choice.provider.traits.word == word
    return request_of(Provider(choice.service)), complaints


U3 = {"ASSEMBLYAI_SPEECH_MODEL": "u3-rt-pro"}
FLUX = {"DEEPGRAM_MODEL": "flux-general-multi"}


@pytest.mark.parametrize(
    ("word", "environ", "language"),
    [
        ("deepgram", {}, "language=de"),
        ("deepgram", FLUX, "language_hint=de"),
        ("gladia", {}, '"languages":["de"]'),
        ("assemblyai", U3, "language_codes=%5B%22de%22%5D"),
    ],
)
def test_a_call_is_heard_in_its_own_language(word: str, environ: dict[str, str], language: str) -> None:
    asked, complaints = asked_of(word, environ, language="de")
    assert complaints == []
    assert language in asked
    assert language not in asked_of(word, environ)[0]


@pytest.mark.parametrize("word", OFFERS)
def test_a_call_has_terms_of_its_own_beside_the_configured_ones(word: str) -> None:
    configured = {
        "DEEPGRAM_KEYTERM": "Ada",
        "GLADIA_CUSTOM_VOCABULARY": "Ada",
        "ASSEMBLYAI_KEYTERMS": "Ada",
    }
    asked, complaints = asked_of(word, configured, keyterms="Harbor, Elm")
    assert complaints == []
    for term in ("Ada", "Harbor", "Elm"):
        assert term in asked
    assert "Harbor" not in asked_of(word, configured)[0]


@pytest.mark.parametrize("word", OFFERS)
@pytest.mark.parametrize(
    "parameters",
    [{"language": "<script>"}, {"language": "de_s3cret"}, {"keyterms": "s3cret\n\x1b[31m"}],
    ids=["markup", "a strange code", "control characters"],
)
def test_what_a_service_does_not_take_is_told_without_repeating_it(word: str, parameters: dict[str, str]) -> None:
    asked, (complaint,) = asked_of(word, {}, **parameters)
    assert asked == asked_of(word, {})[0]
    assert complaint.startswith(f"asks for what {OFFERS[word].name} cannot do: ")
    for value in ("script", "s3cret", "\x1b"):
        assert value not in complaint
    assert complaint.isprintable()


@pytest.mark.parametrize(
    ("word", "terms", "says"),
    [
        ("deepgram", ",".join(f"a s3cret of many more words than {n}" for n in range(80)), "DEEPGRAM_KEYTERM"),
        ("assemblyai", "s3cret" * 10, "ASSEMBLYAI_KEYTERMS"),
        ("gladia", "s3cret," * 50 + "s3cret" * 50, "a call's own terms"),
        ("gladia", ",".join(f"s3cret{n}" for n in range(101)), "a call's own terms"),
    ],
)
def test_terms_that_are_too_many_or_too_long_are_refused(word: str, terms: str, says: str) -> None:
    _, (complaint,) = asked_of(word, {}, keyterms=terms)
    assert says in complaint
    assert "s3cret" not in complaint


def test_of_two_wishes_the_one_that_can_be_had_is() -> None:
    asked, complaints = asked_of("assemblyai", {}, language="de", keyterms="Harbor")
    assert len(complaints) == 1
    assert "Harbor" in asked


def test_a_service_that_is_not_there_is_not_repeated() -> None:
    listening = listeners(DEEPGRAM)
    for word in ("gladia", "s3cret"):
        (chain,), complaints = listening.choose({"service": word})
        assert chain[0].provider.traits.word == "deepgram"
        assert complaints == ["asks for a service that is not set up here"]


def test_a_call_that_asks_for_a_service_keeps_the_others_as_fallbacks() -> None:
    listening = listening_with(ALL, SPEECH_FALLBACKS="gladia")
    for word, chain in (("assemblyai", ["assemblyai", "gladia"]), ("gladia", ["gladia"])):
        (choices,), complaints = listening.choose({"service": word})
        assert [choice.provider.traits.word for choice in choices] == chain
        assert complaints == []


# --- Which of them comes first -----------------------------------------------------------------------------------


def choice(name: str, *, well: bool = True, room: bool = True) -> Choice:
    service = OFFERS["gladia"].make(replace(OFFERS["gladia"].settings(), api_key="key"))
    provider = Provider(Hasty(service, Limits(1 if room else 0), name=name))
    provider.well = well
    return Choice(provider, provider.service)


@pytest.mark.parametrize(
    ("choices", "first"),
    [
        ([choice("one"), choice("two")], "one"),
        ([choice("one", room=False), choice("two")], "two"),
        ([choice("one", well=False), choice("two")], "two"),
        ([choice("one", room=False), choice("two", well=False)], "one"),
        ([choice("one", well=False), choice("two", room=False)], "two"),
        ([choice("one", well=False), choice("two", well=False)], "one"),
    ],
)
def test_who_is_well_and_has_room_comes_first(choices: list[Choice], first: str) -> None:
    assert first_choice(choices).service.traits.name == first


# --- The table ---------------------------------------------------------------------------------------------------


def test_the_table_has_a_cell_for_each_service_and_ability() -> None:
    head, rows = what_each_can_do()
    assert head == ["", "Deepgram", "Deepgram Flux", "Gladia", "AssemblyAI"]
    assert {offer.name for offer in OFFERS.values()} <= set(head)
    assert len(rows) == 2 + len(fields(Abilities))
    for row in rows:
        assert len(row) == len(head)
        assert all(cell.strip() and cell.isprintable() for cell in row)
