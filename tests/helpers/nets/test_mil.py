import numpy as np
import pytest
import torch
from monai.networks.nets.milmodel import MILModel
from torch import nn

from helpers.nets.mil import POOLS, mil, segment_softmax, take

BAGS = torch.tensor([0, 2, 0, 1, 2, 2, 0, 2])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_segment_softmax_is_the_softmax_of_each_bag():
    scores = noise(8) * 500
    found = segment_softmax(scores, BAGS)
    for bag in range(3):
        torch.testing.assert_close(found[BAGS.eq(bag)], scores[BAGS.eq(bag)].softmax(0))


def test_segment_softmax_has_the_gradient_of_softmax():
    scores = noise(8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: segment_softmax(s, BAGS), scores)


@pytest.mark.parametrize("pool", POOLS)
def test_bags_of_unequal_size_equal_each_bag_by_itself(pool):
    model, x = mil(5, hidden=6, pool=pool), noise(8, 5)
    together = model(x, BAGS)
    assert together.shape == (3, 1)
    for bag in range(3):
        alone = model(x[BAGS.eq(bag)], torch.zeros(int((BAGS.eq(bag)).sum()), dtype=int))
        torch.testing.assert_close(together[bag], alone[0])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_chunks_change_nothing(pool, chunk):
    model, x = mil(5, hidden=6, pool=pool), noise(8, 5)
    torch.testing.assert_close(model(x, BAGS, chunk=chunk), model(x, BAGS))


def test_a_chunked_bag_never_has_more_than_a_chunk_embedded():
    model, seen = mil(5, hidden=6), []
    model.embed.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    model(noise(50, 5), torch.zeros(50, dtype=int), chunk=7)
    assert max(seen) == 7 and sum(seen) == 100  # once for the weights, once for the mean


def test_attention_equals_equations_8_and_9():
    model, x = mil(5, hidden=4), noise(6, 5)
    h = (x @ model.embed[0].weight.T + model.embed[0].bias).clamp(min=0)
    gate = torch.tanh(h @ model.v.weight.T) * torch.sigmoid(h @ model.u.weight.T)
    a = torch.exp(gate @ model.w.weight[0]) / torch.exp(gate @ model.w.weight[0]).sum()
    expected = (a[:, None] * h).sum(0) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(x, torch.zeros(6, dtype=int))[0], expected)


def test_the_pools_equal_monai():
    x, bags = noise(12, 5), torch.arange(3).repeat_interleave(4)
    for pool, mode in (("mean", "mean"), ("attention", "att")):
        ours = mil(5, hidden=6, pool=pool)
        peer = MILModel(num_classes=1, pretrained=False, mil_mode=mode, backbone="resnet18", trans_blocks=1)
        peer.myfc = ours.classifier
        if pool == "attention":  # MONAI has no gate: Eq. 8 instead of 9
            peer.attention = nn.Sequential(_Gate(ours), ours.w)
        torch.testing.assert_close(ours(x, bags), peer.calc_head(ours.embed(x).view(3, 4, 6)))


class _Gate(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.v, self.u = model.v, model.u

    def forward(self, h):
        return self.v(h).tanh() * self.u(h).sigmoid()


def test_max_is_the_highest_logit_of_an_instance():
    model, x = mil(5, hidden=6, pool="max"), noise(8, 5)
    shares, logits = model.explain(x, BAGS)
    for bag in range(3):
        members = BAGS.eq(bag)
        torch.testing.assert_close(model(x, BAGS)[bag, 0], logits[members].max())
        assert shares[members].argmax() == logits[members].argmax() and shares[members].max() == 1
    twice = torch.cat([x, x])
    torch.testing.assert_close(model(twice, torch.cat([BAGS, BAGS])), model(x, BAGS))  # ties


def test_mean_is_the_mean_of_the_logits_of_instances():
    model, x = mil(5, hidden=6, pool="mean"), noise(8, 5)
    shares, logits = model.explain(x, BAGS)
    for bag in range(3):
        torch.testing.assert_close(model(x, BAGS)[bag, 0], logits[BAGS.eq(bag)].mean())
    torch.testing.assert_close(shares, 1 / torch.bincount(BAGS)[BAGS])


@pytest.mark.parametrize("pool", POOLS)
def test_one_instance_is_its_own_bag(pool):
    model, x = mil(5, hidden=6, pool=pool), noise(1, 5)
    shares, logits = model.explain(x, torch.zeros(1, dtype=int))
    assert shares.item() == 1
    torch.testing.assert_close(model(x, torch.zeros(1, dtype=int))[0], logits)


@pytest.mark.parametrize("pool", POOLS)
def test_order_of_instances_does_not_matter(pool):
    model, x, order = mil(5, hidden=6, pool=pool), noise(8, 5), torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    torch.testing.assert_close(model(x[order], BAGS[order]), model(x, BAGS))


def test_take_renumbers_the_chosen_bags():
    x = torch.arange(8.0)[:, None]
    instances, bags = take(x, BAGS, torch.tensor([2, 0]))
    assert instances[:, 0].tolist() == [1, 4, 5, 7, 0, 2, 6] and bags.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_errors():
    model, x = mil(5, hidden=6), noise(3, 5)
    bags = torch.tensor([0, 0, 1])
    for arguments, options, message in (
        ((x[:, :4], bags), {}, r"instances are \(3, 4\); expected \(M, 5\)"),
        ((x[:0], bags[:0]), {}, r"instances are \(0, 5\); expected"),
        ((x, bags[:2]), {}, r"bags are \(2,\); expected \(3,\)"),
        ((x, bags.float()), {}, "integers of 0 or more"),
        ((x, bags - 1), {}, "integers of 0 or more"),
        ((x, bags * 2), {}, "bag 1 is empty; expected an instance in each of 3 bags"),
        ((x, bags), dict(chunk=0), "chunk is 0; expected 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            model(*arguments, **options)
    with pytest.raises(ValueError, match="bag 5 is empty"):
        take(x, bags, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="pool is 'sum'"):
        mil(5, pool="sum")
