// Shows the OpenAPI document that the page names, with Swagger UI, which is loaded before this.

'use strict';

function cookie(name) {
  const found = document.cookie.split('; ').find(pair => pair.startsWith(`${name}=`));
  return found && decodeURIComponent(found.slice(name.length + 1));
}

// Whoever came by a login, and gives no token, proves with this header that the request is this page's own.
function addXsrfToken(request) {
  const isOurs = new URL(request.url, location.href).origin === location.origin;
  const hasToken = Object.keys(request.headers).some(name => name.toLowerCase() === 'authorization');
  const token = cookie('_xsrf');
  if (isOurs && !hasToken && token) {
    request.headers['X-XSRFToken'] = token;
  }
  return request;
}

// A token that logged the visitor in has done its work: it is not to be seen, kept or passed on.
function removeToken() {
  const here = new URL(location.href);
  if (here.searchParams.has('token')) {
    here.searchParams.delete('token');
    history.replaceState(null, '', here);
  }
}

window.addEventListener('DOMContentLoaded', () => {
  const page = document.getElementById('docs');
  removeToken();
  window.SwaggerUIBundle({
    domNode: page,
    url: page.dataset.document,
    requestInterceptor: addXsrfToken,
    // The call that is shown is for others, who have no use for that token.
    showMutatedRequest: false,
    deepLinking: true,
    displayRequestDuration: true,
    // Nothing is sent to other servers.
    validatorUrl: null
  });
});
