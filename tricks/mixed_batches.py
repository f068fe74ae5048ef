from dataclasses import replace

from bench.trick import Claim, Trick


class MixedBatches(Trick):
    """Mixed minibatches: in D's step real images and fakes go through D in one batch, not in one batch each.

    D(cat[x, G(z)]) in place of D(x), D(G(z)): what differs is what D's BatchNorm (or another layer that looks at
    the batch) normalises by, so without such a layer the trick does nothing. In G's step D sees fakes alone
    either way, so with mixed batches D's statistics there are not those it was trained with.
    """

    claims = [
        Claim(
            "construct different mini-batches for real and fake: mixing them is what not to do (no number)",
            "fid",
            1,
            "ganhacks 4 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        )
    ]
    ganhacks = 4
    inert_if = {"d_sees_one_image_at_a_time": "an image's logit is the same in any batch"}
    interacts = {"batch_norm": "D's BatchNorm is what mixing acts through"}

    def recipe(self, recipe):
        return replace(recipe, mixed=True)
