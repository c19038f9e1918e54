"""The annotated example notebooks answer as they say they do, here and under a real Kernel Gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest

from tests import gateways, served

EXAMPLES = Path(__file__).parents[1] / "examples"
HOUSE = {
    "MedInc": 8.3,
    "HouseAge": 41,
    "AveRooms": 7.0,
    "AveBedrms": 1.02,
    "Population": 322,
    "AveOccup": 2.6,
    "Latitude": 37.88,
    "Longitude": -120.9,
}


SERVERS = pytest.fixture(scope="module", params=["gateway", "serve"])


@SERVERS
def houses(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """The house prices, served."""
    with connected(request.param, tmp_path_factory.mktemp("houses"), "house_prices.ipynb") as client:
        yield client


@SERVERS
def irises(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """The irises, served by two kernels, which know nothing of each other's variables."""
    folder, two = tmp_path_factory.mktemp("irises"), "--KernelGatewayApp.prespawn_count=2"
    with connected(request.param, folder, "iris_service.ipynb", two) as client:
        yield client


@contextlib.contextmanager
def connected(kind: str, folder: Path, notebook: str, *options: str) -> Iterator[httpx.Client]:
    """Serve a notebook by one of the two servers, in a folder, and talk to it."""
    if kind == "gateway":
        with (
            gateways.serving(folder, EXAMPLES / notebook, *options) as gateway,
            talking(gateway.url, gateway.token) as client,
        ):
            yield client
    else:
        with (
            served.serving(folder, f"--seed_uri={EXAMPLES / notebook}", *options) as server,
            talking(server.url, served.TOKEN) as client,
        ):
            yield client


def talking(url: str, token: str) -> httpx.Client:
    """Talk to a server."""
    headers = {"Authorization": f"token {token}"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=gateways.DEADLINE)


def test_houses_in_figures(houses: httpx.Client) -> None:
    """The statistics are JSON, of all eight features or of those asked for."""
    answer = houses.get("/housing_stats")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()["features"]) == list(HOUSE)
    assert answer.json()["accuracy"] > 0.8

    one = houses.get("/housing_stats", params={"feature": "MedInc"}).json()
    assert list(one["features"]) == ["MedInc"]
    assert one["features"]["MedInc"]["min"] < one["features"]["MedInc"]["median"]


def test_a_feature_that_is_not_there(houses: httpx.Client) -> None:
    """A feature that nobody knows is 404, and says so."""
    answer = houses.get("/housing_stats", params={"feature": "Colour"})
    assert answer.status_code == 404
    assert "Colour" in answer.json()["error"]


def test_a_price(houses: httpx.Client) -> None:
    """A house of a rich district by the coast costs more than one of a poor district far away."""
    rich = houses.post("/get_price", json=HOUSE)
    poor = houses.post("/get_price", json={**HOUSE, "MedInc": 1.5, "Longitude": -117.0})
    assert (rich.status_code, poor.status_code) == (200, 200)
    assert rich.json()["price"] > 2 * poor.json()["price"] > 0


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({name: HOUSE[name] for name in list(HOUSE)[1:]}, "MedInc is missing"),
        ({**HOUSE, "MedInc": "8.3"}, "MedInc must be a number"),
        ({**HOUSE, "MedInc": True}, "MedInc must be a number"),
        ({**HOUSE, "Garden": 1}, "Garden is not known"),
        ([HOUSE], "the body must be a JSON object, sent as application/json"),
    ],
)
def test_no_price(houses: httpx.Client, body: object, problem: str) -> None:
    """What is no description of a house is 400, with the reason."""
    answer = houses.post("/get_price", json=body)
    assert (answer.status_code, answer.json()) == (400, {"errors": [problem]})


def test_species(irises: httpx.Client) -> None:
    """Flowers are recognised, by whichever kernel."""
    flowers = [[6.9, 3.1, 5.4, 2.1], [5.1, 3.5, 1.4, 0.2]]
    for _ in range(4):
        answer = irises.post("/predict", json={"flowers": flowers})
        assert [found["species"] for found in answer.json()] == ["virginica", "setosa"]


def test_what_one_kernel_has_learned_all_know(irises: httpx.Client) -> None:
    """A model that is trained by one kernel is used by the other too."""

    def chances() -> set[float]:
        answers = [irises.post("/predict", json={"flowers": [[5.1, 3.5, 1.4, 0.2]]}) for _ in range(4)]
        return {answer.json()[0]["probabilities"]["setosa"] for answer in answers}

    assert irises.post("/train", json={}).json() == {"trained_on": 112, "accuracy": 0.9737}
    (sure,) = chances()
    assert irises.post("/train", json={"test_size": 0.5, "strength": 0.001}).json()["trained_on"] == 75
    (unsure,) = chances()
    assert unsure < sure


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/train", {"test_size": 2}),
        ("/train", {"strength": "much"}),
        ("/predict", {}),
        ("/predict", {"flowers": []}),
        ("/predict", {"flowers": [[1, 2, 3]]}),
        ("/predict", {"flowers": [[1, 2, 3, "4"]]}),
        ("/predict", "a rose"),
    ],
)
def test_what_is_no_flower(irises: httpx.Client, path: str, body: object) -> None:
    """What is no flower and no setting is 400, with the reason."""
    answer = irises.post(path, json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_a_picture(irises: httpx.Client) -> None:
    """The picture is SVG, with the features that were asked for."""
    answer = irises.get("/visualise", params={"x": 0, "y": 1})
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert ET.fromstring(answer.content).tag == "{http://www.w3.org/2000/svg}svg"
    assert answer.content != irises.get("/visualise").content

    assert irises.get("/visualise", params={"x": 4}).status_code == 400
