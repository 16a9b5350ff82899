from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path


def whoami(request):
    forwarded = {name: value for name, value in request.headers.items() if name.startswith("X-")}
    return JsonResponse(
        {
            "service": "billing",
            "secure": request.is_secure(),
            "host": request.get_host(),
            "port": request.get_port(),
            "url": request.build_absolute_uri(),
            "forwarded": forwarded,
        }
    )


def pay(request):
    """A form: Django takes it only from the page that it gave the token to, by https."""
    if request.method == "POST":
        return HttpResponse("paid " + request.POST["amount"])
    return HttpResponse(get_token(request))


urlpatterns = [path("billing/", whoami), path("billing/pay/", pay)]
